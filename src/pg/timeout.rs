//! A deadline for user code.
//!
//! statement_timeout is armed for clients' commands only, so in a worker its timer is free: armed here,
//! it cancels what runs, as it would a client's statement. Its number is the same in 13 to 18.

use std::ffi::c_int;

const STATEMENT_TIMEOUT: c_int = 3;

extern "C-unwind" {
    fn enable_timeout_after(id: c_int, delay_ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn get_timeout_indicator(id: c_int, reset: bool) -> bool;
}

/// An armed deadline.
pub struct Deadline(());

/// Cancels what runs after `delay_us`; at least a millisecond, at most 24 days.
pub fn arm(delay_us: i64) -> Deadline {
    let ms = (delay_us / 1000).clamp(1, i64::from(c_int::MAX)) as c_int;
    // SAFETY: InitPostgres registered the timeout; raises nothing. A later deadline than the pending
    // one costs no system call (timeout.c, from 14).
    unsafe { enable_timeout_after(STATEMENT_TIMEOUT, ms) }
    Deadline(())
}

impl Deadline {
    /// Disarms it and says whether it has struck.
    pub fn disarm(self) -> bool {
        // SAFETY: as above.
        unsafe {
            disable_timeout(STATEMENT_TIMEOUT, true);
            get_timeout_indicator(STATEMENT_TIMEOUT, true)
        }
    }
}
