//! The server's clock: microseconds since 2000-01-01 UTC.

use pgrx::pg_sys;

use super::value::Timestamp;

// Declared without the guard of the bindings, which costs more than the call: they raise nothing.
extern "C-unwind" {
    fn GetCurrentTimestamp() -> i64;
    fn SetCurrentStatementStartTimestamp();
}

/// The time now, as clock_timestamp() has it.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    Timestamp(unsafe { GetCurrentTimestamp() })
}

/// When the client's statement began, as statement_timestamp() has it.
pub fn statement_start() -> Timestamp {
    // SAFETY: reads a variable of this process.
    Timestamp(unsafe { pg_sys::GetCurrentStatementStartTimestamp() })
}

/// Starts a statement now: statement_timestamp() answers this time from here on.
pub fn start_statement() {
    // SAFETY: sets a variable of this process; fit outside parallel workers.
    unsafe { SetCurrentStatementStartTimestamp() }
}
