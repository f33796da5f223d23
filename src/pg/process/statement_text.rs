//! What the server shows of the statement that runs.

use std::ffi::CStr;

use pgrx::pg_sys;

/// Shows another text for the statement that runs, because there is a secret in it: in pg_stat_activity, and in the server's log where
/// the statement fails. What is logged of every statement (log_statement, log_min_duration_statement) the server has read before.
pub fn hide(shown: &'static CStr) {
    extern "C-unwind" {
        fn pgstat_report_activity(state: pg_sys::BackendState::Type, text: *const std::ffi::c_char);
    }
    // SAFETY: the text is static; the server only reads it, and puts its own there with the next statement. Shared memory gets a copy.
    unsafe {
        // A worker has none, and nobody would take this one away.
        if !pg_sys::debug_query_string.is_null() {
            pg_sys::debug_query_string = shown.as_ptr();
        }
        pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, shown.as_ptr());
    }
}
