//! Lengths of time as the session writes intervals.

use pgrx::pg_sys;

/// # Safety
/// A value of type interval.
pub unsafe fn text_of(interval: pg_sys::Datum) -> String {
    // Without a look-up: a worker may say this between two transactions.
    let text = pgrx::direct_function_call_as_datum(pg_sys::interval_out, &[Some(interval)]);
    let text = text.expect("interval_out answers no NULL");
    crate::pg::text::from_c(text.cast_mut_ptr())
}

/// A length of time (µs) as the session writes intervals, for messages: in days where there are whole ones, as people say `1 day`.
pub fn shown_length(us: i64) -> String {
    const DAY_US: i64 = 86_400_000_000;
    let mut interval = pg_sys::Interval {
        time: us % DAY_US,
        day: (us / DAY_US) as i32,
        month: 0,
    };
    // SAFETY: a value of type interval, which outlives the call.
    unsafe { text_of(pg_sys::Datum::from(&raw mut interval)) }
}
