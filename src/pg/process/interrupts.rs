//! Cancels and terminations: when they may strike.

use std::ptr::addr_of_mut;

use pgrx::pg_sys;

/// CHECK_FOR_INTERRUPTS.
pub fn check() {
    pgrx::check_for_interrupts!();
}

/// Does what a process wants to do before a termination that was asked for strikes. Outside a transaction.
pub fn before_termination(work: impl FnOnce()) {
    // SAFETY: flags of this process, which die() sets.
    unsafe {
        let pending = addr_of_mut!(pg_sys::ProcDiePending);
        if *pending == 0 {
            return;
        }
        *pending = 0;
    }
    work();
    // SAFETY: as above.
    unsafe {
        *addr_of_mut!(pg_sys::ProcDiePending) = 1;
        *addr_of_mut!(pg_sys::InterruptPending) = 1;
    }
}

/// Holds cancels off until dropped; a termination still strikes. For bookkeeping between jobs.
pub struct CancelsHeld(());

pub fn hold_cancels() -> CancelsHeld {
    // SAFETY: a counter of this process (HOLD_CANCEL_INTERRUPTS).
    unsafe { *addr_of_mut!(pg_sys::QueryCancelHoldoffCount) += 1 }
    CancelsHeld(())
}

impl Drop for CancelsHeld {
    fn drop(&mut self) {
        // An ERROR resets the counter to zero before it unwinds to here.
        // SAFETY: a counter of this process.
        unsafe {
            let count = addr_of_mut!(pg_sys::QueryCancelHoldoffCount);
            *count = (*count).saturating_sub(1);
        }
    }
}

/// Forgets a cancel that arrived too late for the job it was meant for.
pub fn forget_cancel() {
    // SAFETY: a flag of this process, set by its signal handler.
    unsafe { *addr_of_mut!(pg_sys::QueryCancelPending) = 0 }
}

/// Lets cancels strike until dropped, inside of `hold_cancels`: while a handler runs.
pub struct CancelsReleased(u32);

pub fn release_cancels() -> CancelsReleased {
    // SAFETY: a counter of this process.
    unsafe {
        let count = addr_of_mut!(pg_sys::QueryCancelHoldoffCount);
        let held = *count;
        *count = 0;
        CancelsReleased(held)
    }
}

impl Drop for CancelsReleased {
    fn drop(&mut self) {
        // SAFETY: a counter of this process.
        unsafe { *addr_of_mut!(pg_sys::QueryCancelHoldoffCount) = self.0 }
    }
}
