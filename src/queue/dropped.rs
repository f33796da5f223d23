//! Queues that were dropped, until a scheduler has removed what they have left in the history: for all of them at once, because
//! no index says which finished jobs are of one queue, so that each drop would read the jobs of all.

use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::{clock, BuiltinOid};
use crate::shared::pending;

/// So seldom (µs) is the history read, however many queues are dropped.
const LATER_US: i64 = 600_000_000;

/// When a scheduler removes what a queue has left that was dropped at this moment, at the latest.
pub fn removal_due(dropped_at: Timestamp) -> i64 {
    dropped_at.plus_us(LATER_US).0
}

static LEAVE: Plan = Plan::new(
    "INSERT INTO pushy_internal.dropped_queue (queue_id) VALUES ($1) ON CONFLICT (queue_id) DO NOTHING",
    &[BuiltinOid::INT4OID],
);

/// Leaves the history of a queue to the scheduler; as the extension's owner, as are the next.
pub fn leave(queue_id: i32) {
    spi::run(&LEAVE, params![queue_id]);
    pending::due(removal_due(clock::now()));
}

static BOUNDS: Plan = Plan::new(
    "SELECT pg_catalog.min(d.dropped_at), pg_catalog.max(d.dropped_at) FROM pushy_internal.dropped_queue d",
    &[],
);

/// When the first and the last queue were dropped of which something may be left; None: there is none.
pub fn bounds() -> Option<(Timestamp, Timestamp)> {
    spi::connect(|spi| {
        let found = spi.run(&BOUNDS, &[]);
        let row = found.row(0);
        let (first, last) = row.opt_i64(1).zip(row.opt_i64(2))?;
        Some((Timestamp(first), Timestamp(last)))
    })
}

static FORGET: Plan = Plan::new(
    "DELETE FROM pushy_internal.dropped_queue d WHERE d.dropped_at OPERATOR(pg_catalog.<=) $1",
    &[BuiltinOid::TIMESTAMPTZOID],
);

/// Nothing is left of those that were dropped by then.
pub fn forget(dropped_by: Timestamp) {
    spi::run(&FORGET, params![dropped_by]);
}
