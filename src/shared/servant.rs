//! A worker that a database has one of: its scheduler, its relay.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, Ordering};

use crate::pg::latch::ProcessCell;

#[repr(C)]
pub struct Servant {
    process: ProcessCell,
    pid: AtomicI32,
    /// When it came (µs).
    pub(super) since: AtomicI64,
    /// The launcher has registered one that has not come up yet, and when (µs).
    starting: AtomicBool,
    pub(super) starting_since: AtomicI64,
    /// How many in a row did not come up, and before when (µs) no other is tried.
    failures: AtomicU32,
    pub(super) retry_at: AtomicI64,
}

impl Servant {
    /// For another database.
    pub fn reset(&self) {
        let Self {
            // The process itself takes these back when it leaves.
            process: _,
            pid: _,
            since: _,
            starting,
            starting_since,
            failures,
            retry_at,
        } = self;
        starting.store(false, Ordering::SeqCst);
        starting_since.store(0, Ordering::SeqCst);
        failures.store(0, Ordering::SeqCst);
        retry_at.store(0, Ordering::SeqCst);
    }

    /// Enters this process.
    pub fn enter(&self, pid: i32, now: i64) {
        self.process.enter();
        self.pid.store(pid, Ordering::SeqCst);
        self.since.store(now, Ordering::SeqCst);
    }

    pub fn leave(&self) {
        self.process.leave();
        self.pid.store(0, Ordering::SeqCst);
    }

    pub fn is_entered(&self) -> bool {
        self.process.is_entered()
    }

    pub fn wake(&self) {
        self.process.wake();
    }

    /// 0: there is none.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::SeqCst)
    }

    pub fn since(&self) -> i64 {
        self.since.load(Ordering::SeqCst)
    }

    pub fn is_starting(&self) -> bool {
        self.starting.load(Ordering::SeqCst)
    }

    /// Neither there nor on its way.
    pub fn is_absent(&self) -> bool {
        !self.is_entered() && !self.is_starting()
    }

    /// The same, since `time` (µs) or later.
    pub fn is_starting_since(&self, time: i64) -> bool {
        self.is_starting() && self.starting_since.load(Ordering::SeqCst) >= time
    }

    /// The launcher registers one.
    pub fn set_starting(&self, now: i64) {
        self.starting_since.store(now, Ordering::SeqCst);
        self.starting.store(true, Ordering::SeqCst);
    }

    /// It has come up, or is not to come; true if it was on its way.
    pub fn end_starting(&self) -> bool {
        self.starting.swap(false, Ordering::SeqCst)
    }

    /// It did not come up; answers how many did not before.
    pub fn count_failure(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::SeqCst)
    }

    pub fn has_failed(&self) -> bool {
        self.failures.load(Ordering::SeqCst) > 0
    }

    pub fn has_succeeded(&self) {
        self.failures.store(0, Ordering::SeqCst);
    }

    pub fn retry_at(&self) -> i64 {
        self.retry_at.load(Ordering::SeqCst)
    }

    pub fn set_retry_at(&self, time: i64) {
        self.retry_at.store(time, Ordering::SeqCst);
    }

    /// What kept it from coming up may be gone.
    pub fn forgive(&self) {
        self.set_retry_at(0);
    }
}
