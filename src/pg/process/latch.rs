//! Latches: how a process sleeps and how another wakes it.

use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use pgrx::pg_sys;

/// A place in shared memory that names a process by its number in the array of processes, so that
/// another can set its latch. Zeroed memory is 'nobody'.
#[repr(transparent)]
pub struct ProcessCell(AtomicI32);

/// Of how many processes that run SQL the server has places.
pub fn most_processes() -> usize {
    // SAFETY: reads what is computed once, before anybody asks for shared memory.
    unsafe { pg_sys::MaxBackends }.max(0) as usize
}

/// This process's place in the array of processes, below `most_processes` for one that runs SQL.
pub fn my_number() -> usize {
    // SAFETY: MyProc points into allProcs for every process attached to shared memory.
    unsafe { pg_sys::MyProc.offset_from((*pg_sys::ProcGlobal).allProcs) as usize }
}

impl ProcessCell {
    /// Enters this process.
    pub fn enter(&self) {
        self.0.store(my_number() as i32 + 1, Ordering::SeqCst);
    }

    pub fn leave(&self) {
        self.0.store(0, Ordering::SeqCst);
    }

    /// Whether a process is entered.
    pub fn is_entered(&self) -> bool {
        self.0.load(Ordering::SeqCst) != 0
    }

    /// The process entered, if there is one.
    pub fn pid(&self) -> Option<i32> {
        let entered = self.0.load(Ordering::SeqCst);
        // SAFETY: as in `wake`; reading a pid that changes meanwhile does no harm.
        (entered > 0)
            .then(|| unsafe { (*(*pg_sys::ProcGlobal).allProcs.offset(entered as isize - 1)).pid })
    }

    /// Sets the latch of the process entered. A process that left meanwhile means a spurious
    /// wake-up of whoever has its place now, which every wait tolerates.
    pub fn wake(&self) {
        let entered = self.0.load(Ordering::SeqCst);
        if entered > 0 {
            // SAFETY: the number was in range when entered, and the array never shrinks. SetLatch
            // raises nothing and allocates nothing: may be called in commit callbacks.
            unsafe {
                let process = (*pg_sys::ProcGlobal).allProcs.offset(entered as isize - 1);
                pg_sys::SetLatch(&mut (*process).procLatch);
            }
        }
    }
}

/// Sleeps until this process's latch is set or `timeout` has passed (None: no bound). Serves
/// interrupts after waking, so a SIGTERM ends the process here.
pub fn wait(timeout: Option<Duration>) {
    wait_unless_ended(timeout, || ());
}

/// The same; `last` is done before a SIGTERM ends the process here.
pub fn wait_unless_ended(timeout: Option<Duration>, last: impl FnOnce()) {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_EXIT_ON_PM_DEATH;
    let mut milliseconds = -1;
    if let Some(timeout) = timeout {
        events |= pg_sys::WL_TIMEOUT;
        // Rounded up: waking just before a due time would be a busy loop.
        milliseconds = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as std::ffi::c_long;
    }
    // SAFETY: MyLatch is this process's own.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    // A cancel that finds a worker asleep is meant for nothing that runs.
    crate::pg::interrupts::forget_cancel();
    crate::pg::interrupts::before_termination(last);
    crate::pg::interrupts::check();
}
