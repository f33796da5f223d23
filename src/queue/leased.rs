//! How many jobs of a queue workers outside have leased.

use crate::errors::Result;
use crate::pg::heap::{self, Key};
use crate::pg::snapshot;

/// As the extension's owner.
pub fn count(queue_id: i32) -> Result<i64> {
    let mut count = 0;
    let leases = heap::open_for_reading("lease")?;
    let (keys, now) = ([Key::int4_equals(1, queue_id)], snapshot::take_latest());
    leases.read_in_order("lease_worker", &keys, &now, false, |_| {
        count += 1;
        Ok(true)
    })?;
    Ok(count)
}
