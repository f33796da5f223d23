//! How long a lease is, and when it ends.

use crate::errors::{Error, Result};
use crate::pg::function::Call;
use crate::pg::value::Timestamp;
use crate::shared;

/// How long a lease is to be (µs); 0: until the session ends; None: as the queue says.
pub(super) fn read_lease(call: Call, name: &str, index: usize) -> Result<Option<i64>> {
    match call.opt_interval_us(name, index)? {
        Some(us) if us < 0 => Err(Error::out_of_range(
            name,
            call.shown_interval(index),
            "an interval above 0, or 0 for a claim that ends with this session",
        )),
        lease_us => Ok(lease_us),
    }
}

/// When a lease of so long (µs) ends, and the session that it ends with.
pub(super) fn end_of(lease_us: i64, now: Timestamp) -> (Timestamp, Option<i64>) {
    // Without the preload nothing is claimed.
    match shared::get().filter(|_| lease_us == 0) {
        Some(shared) => (Timestamp::INFINITY, Some(shared.enter_session())),
        None => (now.plus_us(lease_us), None),
    }
}
