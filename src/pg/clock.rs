//! The server's clock: microseconds since 2000-01-01 UTC.

use pgrx::pg_sys;

use super::value::Timestamp;

/// The time now, as clock_timestamp() has it.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    Timestamp(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// When the client's statement began, as statement_timestamp() has it.
pub fn statement_start() -> Timestamp {
    // SAFETY: reads a variable of this process.
    Timestamp(unsafe { pg_sys::GetCurrentStatementStartTimestamp() })
}

/// Starts a statement now: statement_timestamp() answers this time from here on.
pub fn start_statement() {
    // SAFETY: sets a variable of this process; fit outside parallel workers.
    unsafe { pg_sys::SetCurrentStatementStartTimestamp() }
}
