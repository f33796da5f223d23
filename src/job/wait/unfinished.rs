//! Whether a queue has anything left to do but jobs scheduled for later: one whose time has come is owed, even where somebody
//! holds its row and the scheduler has passed over it.
//!
//! The table alone has the answer, but each look at it walks over all rows done since the last vacuum: 5 ms for each
//! 100,000. So the table is asked only where shared memory leaves a doubt.

use std::sync::atomic::Ordering;

use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, identity, transaction, BuiltinOid};
use crate::queue::definition::QueueDefinition;
use crate::shared::queue_slot::{QueueKey, QueueSlot, NOTHING};
use crate::shared::{self, Shared};

use crate::job::live;

static UNFINISHED: Plan = Plan::new(
    "SELECT 1 FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1 \
        AND (j.state OPERATOR(pg_catalog.<>) 's'::pg_catalog.\"char\" OR j.run_at OPERATOR(pg_catalog.<=) $2) LIMIT 1",
    &[BuiltinOid::INT4OID, BuiltinOid::TIMESTAMPTZOID],
);

// Jobs that wait for another attempt: they have no position until their time has come, and an index of the same condition. And those that are
// leased.
static WAITING: Plan = Plan::new(
    "SELECT 1 FROM pushy_internal.lease l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 \
     UNION ALL \
     SELECT 1 FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1 \
        AND j.position IS NULL AND j.leased IS NULL \
        AND (j.state OPERATOR(pg_catalog.<>) 's'::pg_catalog.\"char\" OR j.run_at OPERATOR(pg_catalog.<=) $2) LIMIT 1",
    &[BuiltinOid::INT4OID, BuiltinOid::TIMESTAMPTZOID],
);

/// Whether there is an unfinished job. The transaction has no snapshot yet.
pub fn is_any(queue: &QueueDefinition, slot: Option<usize>) -> Result<bool> {
    let placed = shared::get().zip(slot);
    let placed = placed.filter(|(shared, slot)| shared.queues()[*slot].is(queue.key()));
    let Some((shared, slot)) = placed else {
        return in_snapshot(|| Ok(has(&UNFINISHED, queue.queue_id)));
    };
    let seen = QueueActivity {
        shared,
        slot: &shared.queues()[slot],
        key: queue.key(),
    };
    // Before any snapshot: a look that finds nothing settles the rows passed over up to this count.
    let times = seen.slot.times_passed_over();
    if seen.is_held() {
        return Ok(true);
    }
    if let Some(mark) = seen.idle_mark() {
        // Nothing is ready. A waiting job that became ready meanwhile was announced, and a running one that waits now had
        // a permit; both change the mark. If that is the same after this look, no job was missed.
        if in_snapshot(|| Ok(has(&WAITING, queue.queue_id)))? {
            return Ok(true);
        }
        if seen.idle_mark() == Some(mark) {
            return Ok(false);
        }
    }
    let found = in_snapshot(|| Ok(seen.has_ready()? || has(&UNFINISHED, queue.queue_id)))?;
    if !found {
        seen.slot.is_empty_after(times);
    }
    Ok(found)
}

/// What shared memory says of a queue.
struct QueueActivity {
    shared: &'static Shared,
    slot: &'static QueueSlot,
    key: QueueKey,
}

impl QueueActivity {
    /// Whether an executor has jobs of the queue.
    fn is_held(&self) -> bool {
        let mut executors = self.shared.executors.iter();
        executors.any(|executor| executor.has_jobs_of(self.key))
    }

    fn idle_mark(&self) -> Option<u64> {
        if self.shared.has_untold(self.key.database) {
            return None;
        }
        let database_slot = self.shared.find_database(self.key.database)?;
        database_slot.idle_mark_of(self.slot)
    }

    /// Whether there is a job from the watermarks on, where most of what is ready begins.
    fn has_ready(&self) -> Result<bool> {
        let lows = self.slot.low.iter().map(|low| low.load(Ordering::SeqCst));
        for (priority, from) in lows.enumerate() {
            let may_have = from != NOTHING && from != 0;
            if may_have && live::first_ready(self.key.queue_id, priority, from)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

fn in_snapshot(read: impl FnOnce() -> Result<bool>) -> Result<bool> {
    transaction::with_snapshot(|| identity::as_owner(read))
}

fn has(plan: &Plan, queue_id: i32) -> bool {
    spi::connect(|spi| !spi.run(plan, params![queue_id, clock::now()]).is_empty())
}
