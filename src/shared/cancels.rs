//! Cancels that were promised to their callers and must outlive the batch that held the job: none is lost, and
//! the job begins nowhere from their commit on.
//!
//! A promise takes a place before its transaction commits, where code may still fail. From the commit on it stands
//! there for everybody to see, until the job is cancelled or gone. Whoever promises writes it down and looks then who
//! holds the job; an executor says what it holds, or that it holds it no more, and looks then what is written down: one
//! of the two sees the other. What nobody holds is the scheduler's.

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
    /// Promises that are committed and not carried out yet.
    open: AtomicU64,
    /// Where the search for a free place begins: those before it are taken, as a rule.
    free_from: AtomicU64,
    /// Places from this on have never been taken.
    used: AtomicU64,
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
        let from = self.free_from.load(Ordering::SeqCst) as usize;
        let free = (from..PLACES).chain(0..from).find(|place| {
            self.places[*place]
                .job
                .compare_exchange(FREE, KEPT, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        })?;
        self.free_from
            .store((free + 1) as u64 % PLACES as u64, Ordering::SeqCst);
        self.used.fetch_max(free as u64 + 1, Ordering::SeqCst);
        Some(free)
    }

    /// The promise was rolled back.
    pub fn give_up(&self, place: usize) {
        self.free(place, KEPT);
    }

    /// The promise is committed.
    pub fn commit(&self, promise: Promise, database: u32) {
        let cell = &self.places[promise.place];
        cell.database.store(database, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        cell.job.store(promise.job, Ordering::SeqCst);
    }

    /// The job was cancelled, or is gone. By whoever finds that: more than one may.
    pub fn carried_out(&self, promise: Promise) {
        if self.free(promise.place, promise.job) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn free(&self, place: usize, taken: i64) -> bool {
        let freed = self.places[place]
            .job
            .compare_exchange(taken, FREE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
        self.free_from.fetch_min(place as u64, Ordering::SeqCst);
        freed
    }

    /// Whether the cancel of a job was committed and is not carried out yet.
    pub fn includes(&self, database: u32, job: i64) -> bool {
        self.of(database).any(|promise| promise.job == job)
    }

    /// What was committed in a database and is not carried out yet.
    pub fn of(&self, database: u32) -> impl Iterator<Item = Promise> + '_ {
        let used = match self.open.load(Ordering::SeqCst) {
            0 => 0,
            _ => self.used.load(Ordering::SeqCst) as usize,
        };
        self.places[..used]
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
        for promise in self.of(database) {
            self.carried_out(promise);
        }
    }
}
