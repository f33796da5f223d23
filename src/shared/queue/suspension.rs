//! A queue that executors keep away from for a while, because its last batches have failed for want of something in the server.

use std::sync::atomic::Ordering;

use pushy_core::backoff;

use super::queue_slot::QueueSlot;

impl QueueSlot {
    /// When executors may try the queue again (µs); 0 or past: now.
    pub fn suspended_until(&self) -> i64 {
        self.suspended_until.load(Ordering::SeqCst)
    }

    /// Keeps executors from the queue as `backoff::EXECUTOR` says, longer after each failure in a row; true for
    /// the first.
    pub fn suspend(&self, now: i64) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::SeqCst);
        let until = now + backoff::EXECUTOR.delay_us(failures);
        self.suspended_until.store(until, Ordering::SeqCst);
        failures == 0
    }

    /// Keeps executors from the queue until a time (µs), because somebody holds a lock.
    pub fn suspend_until(&self, time: i64) {
        self.suspended_until.store(time, Ordering::SeqCst);
    }

    /// A batch has committed: the next failure is a first one.
    pub fn end_suspension(&self) {
        self.suspended_until.store(0, Ordering::SeqCst);
        self.failures.store(0, Ordering::SeqCst);
    }

    /// Whether the queue has failed since a batch last committed.
    pub fn is_suspended(&self) -> bool {
        self.failures.load(Ordering::SeqCst) != 0
    }
}
