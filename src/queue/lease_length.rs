//! How long a lease is, and when it ends.

use std::fmt::Display;

use crate::errors::{Error, Result};
use crate::pg::function::Call;
use crate::pg::value::Timestamp;
use crate::shared;

/// What is shorter is over before its worker has the answer, and costs an attempt each time: whoever says it means another unit.
const SHORTEST_US: i64 = 1_000;

/// How long a lease is to be (µs); 0: until the session ends; None: as the queue says.
pub fn read_lease(call: Call, name: &str, index: usize) -> Result<Option<i64>> {
    let lease_us = call.opt_interval_us(name, index)?;
    require(name, lease_us, || call.shown_interval(index))
}

/// The same length, which was given as `shown`, if a lease may have it.
pub fn require<S: Display>(
    name: &str,
    lease_us: Option<i64>,
    shown: impl FnOnce() -> S,
) -> Result<Option<i64>> {
    match lease_us {
        None | Some(0 | SHORTEST_US..) => Ok(lease_us),
        Some(_) => Err(Error::out_of_range(
            name,
            shown(),
            "1 ms or more, or 0 for a claim that ends with its session",
        )),
    }
}

/// When a lease of so long (µs) ends, and the session that it ends with.
pub fn end_of(lease_us: i64, now: Timestamp) -> (Timestamp, Option<i64>) {
    // Without the preload nothing is claimed.
    match shared::get().filter(|_| lease_us == 0) {
        Some(shared) => (Timestamp::INFINITY, Some(shared.enter_session())),
        None => (now.plus_us(lease_us), None),
    }
}
