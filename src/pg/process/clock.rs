//! The server's clock: microseconds since 2000-01-01 UTC.

use crate::pg::value::Timestamp;

// Declared without the guard of the bindings, which costs more than the call: they raise nothing.
extern "C-unwind" {
    fn GetCurrentTimestamp() -> i64;
    fn GetCurrentStatementStartTimestamp() -> i64;
    fn SetCurrentStatementStartTimestamp();
}

/// The time now, as clock_timestamp() has it.
pub fn now() -> Timestamp {
    // SAFETY: reads the clock.
    Timestamp(unsafe { GetCurrentTimestamp() })
}

/// Processor time of this process so far (µs): what others do on the machine is not in it.
pub fn processor_time_us() -> i64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: fills the structure; the clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
}

/// When the client's statement began, as statement_timestamp() has it.
pub fn statement_start() -> Timestamp {
    // SAFETY: reads a variable of this process.
    Timestamp(unsafe { GetCurrentStatementStartTimestamp() })
}

/// Starts a statement now: statement_timestamp() answers this time from here on.
pub fn start_statement() {
    // SAFETY: sets a variable of this process; fit outside parallel workers.
    unsafe { SetCurrentStatementStartTimestamp() }
}
