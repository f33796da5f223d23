//! Events of single jobs that pushy_control left out, and of queues whose role the launcher found to have no session: how many of each
//! kind in a database, and the last one. Published by the database's scheduler.

use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::database::{DatabaseSlot, NEVER};
use super::Shared;
use crate::pg::clock;
use crate::pg::spinlock::Spinlock;

pub const LEFT_OUT_KINDS: usize = 4;

/// So long (µs) after the first that is left out the last one is published.
const REST_US: i64 = 1_000_000;

/// Events of a kind that were left out.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub count: u64,
    /// The last of them: its job (0: it is the queue's), its queue and who did it.
    pub job: i64,
    pub queue_id: i32,
    pub by: u32,
}

impl Left {
    pub fn one(job: i64, queue_id: i32, by: u32) -> Self {
        Self {
            count: 1,
            job,
            queue_id,
            by,
        }
    }

    /// `later` came after these.
    pub fn add(&mut self, later: Self) {
        *self = Self {
            count: self.count + later.count,
            ..later
        };
    }
}

#[repr(C)]
pub struct Unpublished {
    /// Guards what follows.
    lock: Spinlock,
    count: AtomicU64,
    job: AtomicI64,
    queue_id: AtomicI32,
    by: AtomicU32,
}

impl Unpublished {
    fn change<T>(&self, change: impl FnOnce(&mut Left) -> T) -> T {
        self.lock.with(|| {
            let mut left = Left {
                count: self.count.load(Ordering::Relaxed),
                job: self.job.load(Ordering::Relaxed),
                queue_id: self.queue_id.load(Ordering::Relaxed),
                by: self.by.load(Ordering::Relaxed),
            };
            let answer = change(&mut left);
            self.count.store(left.count, Ordering::Relaxed);
            self.job.store(left.job, Ordering::Relaxed);
            self.queue_id.store(left.queue_id, Ordering::Relaxed);
            self.by.store(left.by, Ordering::Relaxed);
            answer
        })
    }

    pub fn add(&self, later: Left) {
        self.change(|left| left.add(later));
    }

    /// It could not be published.
    pub fn put_back(&self, before: Left) {
        self.change(|left| {
            let mut all = before;
            if left.count > 0 {
                all.add(*left);
            }
            *left = all;
        });
    }

    pub fn take(&self) -> Option<Left> {
        let taken = self.change(|left| {
            let taken = *left;
            left.count = 0;
            taken
        });
        (taken.count > 0).then_some(taken)
    }
}

impl DatabaseSlot {
    pub fn forget_unpublished(&self) {
        self.unpublished_due.store(NEVER, Ordering::SeqCst);
        for unpublished in &self.unpublished {
            unpublished.take();
        }
    }
}

impl Shared {
    /// Makes the scheduler publish in a second what was left out. May be called in commit callbacks.
    pub fn announce_unpublished(&self, database: &DatabaseSlot) {
        let due = clock::now().plus_us(REST_US).0;
        database.unpublished_due.fetch_min(due, Ordering::SeqCst);
        self.announce_due(database, due);
    }
}
