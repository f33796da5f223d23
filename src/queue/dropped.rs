//! Queues that were dropped, until a scheduler has removed what they have left in the history: for all of them at once, because
//! no index says which finished jobs are of one queue, so that each drop would read the jobs of all.

use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::{array, clock, BuiltinOid};
use crate::shared::pending;

/// So seldom (µs) is the history read, however many queues are dropped.
const LATER_US: i64 = 600_000_000;

/// When a scheduler removes what a queue has left that was dropped at this moment: then at the earliest, but with that of one dropped
/// before it.
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

static ALL: Plan = Plan::new(
    "SELECT d.queue_id::pg_catalog.int8, d.dropped_at FROM pushy_internal.dropped_queue d ORDER BY d.dropped_at",
    &[],
);

/// Queues of which something may be left, and when the first of them was dropped.
pub struct Dropped {
    pub first_at: Timestamp,
    queues: Vec<i64>,
}

/// None: there is none.
pub fn all() -> Option<Dropped> {
    spi::connect(|spi| {
        let found = spi.run(&ALL, &[]);
        let first_at = found.first()?.timestamp(2);
        let queues = found.rows().map(|row| row.i64(1)).collect();
        Some(Dropped { first_at, queues })
    })
}

static FORGET: Plan = Plan::new(
    "DELETE FROM pushy_internal.dropped_queue d WHERE d.queue_id OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::INT8ARRAYOID],
);

/// Nothing is left of these. Of others that were dropped before them nothing may have been removed: their transactions were open.
pub fn forget(dropped: &Dropped) {
    spi::run(&FORGET, params![array::of_int8s(&dropped.queues)]);
}
