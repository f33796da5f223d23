//! Timers: a deadline for user code, reminders of our own.
//!
//! statement_timeout is armed for clients' commands only, so in a worker its timer is free: armed here,
//! it cancels what runs, as it would a client's statement. Its number is the same in 13 to 18.

use std::ffi::c_int;

use pgrx::pg_sys;

use crate::pg::clock;
use crate::pg::value::Timestamp;

const STATEMENT_TIMEOUT: c_int = 3;

extern "C-unwind" {
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn enable_timeout_at(id: c_int, time: i64);
    fn RegisterTimeout(id: c_int, handler: extern "C-unwind" fn()) -> c_int;
    fn disable_timeout(id: c_int, keep_indicator: bool);
}

/// An armed deadline; disarmed when it is dropped.
pub struct Deadline {
    at: Timestamp,
}

/// A delay as timers take it: whole milliseconds, one at least.
fn milliseconds(delay_us: i64) -> i64 {
    (delay_us / 1000).max(1)
}

/// When what is armed with the same arguments strikes, or a little later.
pub fn deadline(delay_us: i64, now: Timestamp) -> Timestamp {
    now.plus_us(milliseconds(delay_us) * 1000)
}

/// Cancels what runs after `delay_us`. `now`: by the server's clock, as its timers.
pub fn arm(delay_us: i64, now: Timestamp) -> Deadline {
    let at = deadline(delay_us, now);
    // SAFETY: InitPostgres registered the timeout; raises nothing. A later deadline than the pending
    // one costs no system call (timeout.c, from 14). A delay has 32 bits there: 24 days.
    unsafe {
        match c_int::try_from(milliseconds(delay_us)) {
            Ok(ms) => enable_timeout_after(STATEMENT_TIMEOUT, ms),
            Err(_) => enable_timeout_at(STATEMENT_TIMEOUT, at.0),
        }
    }
    Deadline { at }
}

impl Deadline {
    /// Whether its time has come. The server's own mark of that is gone once the error is raised
    /// (ProcessInterrupts), so it cannot tell a timeout from a cancel.
    pub fn has_passed(&self) -> bool {
        clock::now() >= self.at
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { disable_timeout(STATEMENT_TIMEOUT, false) }
    }
}

/// The first timer that a server leaves to extensions differs from version to version; any number from there on
/// asks for one that is free (RegisterTimeout, timeout.c), and every version has fewer.
const ANY_FREE: c_int = 100;

/// A timer of our own, armed again and again.
pub struct Reminder(c_int);

impl Reminder {
    /// Registers what it calls: in a signal handler, so nothing but atomics and latches. Once in a process, when it
    /// has connected; FATAL when all timers are taken.
    pub fn new(handler: extern "C-unwind" fn()) -> Self {
        // SAFETY: the server has set up its timers, and takes a function for the life of the process.
        Self(unsafe { RegisterTimeout(ANY_FREE, handler) })
    }

    /// Calls the handler in `ms` milliseconds; it must not be pending.
    pub fn arm(&self, ms: c_int) {
        // SAFETY: registered above; raises nothing.
        unsafe { enable_timeout_after(self.0, ms) }
    }
}

impl Reminder {
    /// Forgets the pending call, if there is one.
    pub fn disarm(&self) {
        // SAFETY: as above.
        unsafe { disable_timeout(self.0, false) }
    }
}

/// A wait for a lock is given up after a while, until this is dropped.
#[must_use = "the bound ends when this is dropped"]
pub struct LockPatience(c_int);

/// Waits for locks have no bound: of user code that runs alone.
pub const NO_BOUND: i32 = 0;

/// Bounds waits for locks without a SET: below 16 a setting changed at the outer level makes the end of
/// every subtransaction walk all settings (9 % of a batch of no-op jobs). A SET in a handler still counts,
/// and is undone to this. `ms`: or NO_BOUND.
pub fn bound_lock_waits(ms: i32) -> LockPatience {
    // SAFETY: a variable of this process, read when a lock is waited for.
    unsafe {
        let variable = std::ptr::addr_of_mut!(pg_sys::LockTimeout);
        let before = *variable;
        *variable = ms;
        LockPatience(before)
    }
}

impl Drop for LockPatience {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { *std::ptr::addr_of_mut!(pg_sys::LockTimeout) = self.0 }
    }
}
