//! Condition variables in shared memory: any number of sleepers, woken together.

use std::cell::UnsafeCell;
use std::time::Duration;

use pgrx::pg_sys;

use crate::pg::{major, transaction};

/// A condition variable that lives in shared memory.
#[repr(transparent)]
pub struct Condition(UnsafeCell<pg_sys::ConditionVariable>);

// SAFETY: the server's own spinlock inside guards it.
unsafe impl Sync for Condition {}

/// On a standby nobody announces what has come by replication: whoever waits looks again after so long.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// How long to sleep before another look.
fn patience(left: Duration) -> Duration {
    if transaction::is_in_recovery() {
        left.min(LOOK_AGAIN)
    } else {
        left
    }
}

impl Condition {
    /// Prepares zeroed memory, once, before anybody else sees it.
    pub fn init(&self) {
        // SAFETY: see above.
        unsafe { pg_sys::ConditionVariableInit(self.0.get()) }
    }

    /// Wakes all sleepers. A spinlock and latches only: may be called in commit callbacks.
    pub fn broadcast(&self) {
        // SAFETY: initialised with the segment.
        unsafe { pg_sys::ConditionVariableBroadcast(self.0.get()) }
    }

    /// Wakes the one who has slept longest. May be called in commit callbacks. Who is woken and dies of it wakes nobody else.
    pub fn signal(&self) {
        // SAFETY: initialised with the segment; a spinlock and a latch only.
        unsafe { pg_sys::ConditionVariableSignal(self.0.get()) }
    }

    /// Whether somebody sleeps, or is about to.
    pub fn has_sleepers(&self) -> bool {
        // SAFETY: initialised with the segment; one aligned int, read without the spinlock: a sleeper who comes just now
        // looks again at what it waits for, once it is on the list.
        unsafe {
            let head = std::ptr::addr_of!((*self.0.get()).wakeup.head);
            head.read_volatile() != major::NO_PROCESS
        }
    }

    /// Sleeps until `has_changed`, or `timeout` has passed, and now and then on a standby: a caller that has read what is
    /// announced looks at the tables then, and comes back.
    pub fn wait_change(&self, timeout: Duration, has_changed: impl Fn() -> bool) {
        self.wait_until(patience(timeout), || has_changed().then_some(()));
    }

    /// Does `work` with this process on the list of sleepers: who broadcasts sets its latch.
    pub fn while_listed<T>(&self, work: impl FnOnce() -> T) -> T {
        let _cancel = CancelSleep;
        // SAFETY: as in `wait_until`.
        unsafe { pg_sys::ConditionVariablePrepareToSleep(self.0.get()) }
        work()
    }

    /// Sleeps until `ready` answers, or None when `timeout` has passed. `ready` runs with this
    /// process already on the list of sleepers, so a change after it is never missed. It looks at what it waits for, not only
    /// at what was announced of it: for that is `wait_change`.
    pub fn wait_until<T>(
        &self,
        timeout: Duration,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let deadline = std::time::Instant::now() + timeout;
        let _cancel = CancelSleep;
        // SAFETY: initialised with the segment; a sleep cut short by an ERROR is cancelled by the
        // drop of `_cancel`, and by the server at abort.
        unsafe { pg_sys::ConditionVariablePrepareToSleep(self.0.get()) }
        loop {
            if let Some(found) = ready() {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return None;
            }
            // `ready` may itself have slept on another condition: sleeping here puts us back.
            // SAFETY: as above.
            unsafe {
                pg_sys::ConditionVariableTimedSleep(
                    self.0.get(),
                    // The server takes 24 days at most: after them the loop goes on.
                    patience(left).as_millis().clamp(1, i32::MAX as u128) as std::ffi::c_long,
                    pg_sys::PG_WAIT_EXTENSION,
                );
            }
        }
    }
}

struct CancelSleep;

impl Drop for CancelSleep {
    fn drop(&mut self) {
        // SAFETY: removes this process from the list, if it is on one; raises nothing.
        unsafe {
            pg_sys::ConditionVariableCancelSleep();
        }
    }
}
