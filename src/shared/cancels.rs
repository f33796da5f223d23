//! Cancels that were promised to their callers and must outlive the batch that held the job: none is lost.
//!
//! A promise takes a place before its transaction commits, where code may still fail. The commit hands it
//! to the executor that holds the job, or else to the scheduler of the database. The place is free again
//! when the cancel was carried out, or has nothing to cancel any more.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::executor::MAX_EXECUTORS;
use pushy_core::batch::BatchPlan;

/// As many as all executors can hold jobs at a time; one more is refused.
pub const PLACES: usize = MAX_EXECUTORS * BatchPlan::MAX_JOBS as usize;

const FREE: i64 = 0;
const KEPT: i64 = -1;

/// A cancel that was promised, and its place.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub job: i64,
    pub place: usize,
}

/// The places, for all databases.
#[repr(C)]
pub struct Cancels {
    /// Where the search for a free place begins.
    next: AtomicU64,
    places: [Place; PLACES],
}

#[repr(C)]
struct Place {
    /// The job, once its cancel was committed.
    job: AtomicI64,
    database: AtomicU32,
}

impl Cancels {
    /// Keeps a place for a promise; None when all are taken.
    pub fn keep(&self) -> Option<usize> {
        (0..PLACES).find_map(|_| {
            let index = self.next.fetch_add(1, Ordering::Relaxed) as usize % PLACES;
            self.places[index]
                .job
                .compare_exchange(FREE, KEPT, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
                .then_some(index)
        })
    }

    /// The promise was rolled back, or carried out.
    pub fn free(&self, place: usize) {
        self.places[place].job.store(FREE, Ordering::SeqCst);
    }

    /// Hands a promise to the scheduler.
    pub fn leave(&self, promise: Promise, database: u32) {
        let cell = &self.places[promise.place];
        cell.database.store(database, Ordering::SeqCst);
        cell.job.store(promise.job, Ordering::SeqCst);
    }

    /// What was handed to the scheduler of a database.
    pub fn left(&self, database: u32) -> impl Iterator<Item = Promise> + '_ {
        self.places
            .iter()
            .enumerate()
            .filter_map(move |(place, cell)| {
                let job = cell.job.load(Ordering::SeqCst);
                (job > FREE && cell.database.load(Ordering::SeqCst) == database)
                    .then_some(Promise { job, place })
            })
    }

    /// The jobs of a database are gone: its extension or itself was dropped. Fit for commit callbacks.
    pub fn forget(&self, database: u32) {
        for promise in self.left(database) {
            self.free(promise.place);
        }
    }
}
