//! Leases that are over: the scheduler charges the attempt, and the job comes back.

use pushy_core::job_state::JobState;
use pushy_core::turns::Turns;

use super::charge::{charge, Why};
use super::walk::{is_gone, Walk};
use crate::errors::Result;
use crate::job::lease::leased_job;
use crate::job::live;
use crate::job::moves::lease;
use crate::job::tables::lease as table;
use crate::params;
use crate::pg::heap::Key;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::value::Timestamp;
use crate::pg::BuiltinOid;
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};

/// Leases that are over at `now` and that these turns have come to: when they ended, and of which jobs. As the extension's owner.
pub fn over(
    queues: &[QueueDefinition],
    turns: &mut Turns,
    now: Timestamp,
) -> Result<Vec<(Timestamp, i64)>> {
    let after = turns.begin();
    let from = Timestamp(after.run_at);
    let mut walk = Walk::new(queues, turns);
    if from <= now {
        let place = |row: &Row<'_>| (row.timestamp(table::UNTIL).0, true);
        let same = [Key::timestamp_equals(1, from), Key::int8_above(2, after.id)];
        walk.go_on("lease_end", &same, place)?;
        let later = [
            Key::timestamp_above(1, from),
            Key::timestamp_at_most(1, now),
        ];
        walk.go_on("lease_end", &later, place)?;
    }
    let found = walk.end().into_iter();
    Ok(found.map(|at| (Timestamp(at.run_at), at.id)).collect())
}

/// Ends the lease of a job if it is over at `now`; false when somebody holds the job. As the extension's owner.
pub fn end(id: i64, now: Timestamp) -> Result<bool> {
    let Some(live) = live::lock_if_free(id)? else {
        return is_gone(id);
    };
    // Again, now that the row is locked: it may have been extended.
    let Some(lease) = leased_job::lease_of(id)?.filter(|lease| lease.until <= now) else {
        return Ok(true);
    };
    // An orphan, which the sweep of those ends; or not at home here yet: then all are looked at.
    let queue = definition::find_by_id(live.queue_id)?;
    if let Some(queue) = queue.filter(QueueDefinition::is_home) {
        let slot = cache::slot_of(&queue);
        if live.state != JobState::Running {
            return lease::end_of_nobody(&queue, id).map(|()| true);
        }
        charge(&queue, slot, &live.job, &lease, Why::Expired)?;
    }
    Ok(true)
}

static NEXT: Plan = Plan::new(
    "SELECT l.until FROM pushy_internal.lease l WHERE l.until OPERATOR(pg_catalog.>) $1 \
        AND l.until OPERATOR(pg_catalog.<) 'infinity'::pg_catalog.timestamptz \
        AND EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) l.queue_id) ORDER BY l.until LIMIT 1",
    &[BuiltinOid::TIMESTAMPTZOID],
);

/// When the first lease ends that ends after `now`. As the extension's owner.
pub fn next_end(now: Timestamp) -> Option<Timestamp> {
    spi::connect(|spi| {
        spi.run(&NEXT, params![now])
            .first()
            .map(|row| row.timestamp(1))
    })
}
