//! What a scheduler does at its times: makes due jobs ready, finds what nobody announced.

use rustc_hash::FxHashSet;

use crate::errors::{Error, Result, SqlState};
use crate::job::moves::discard;
use crate::job::moves::promote;
use crate::job::{live, promise};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, identity, transaction};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, pending, Shared};
use pushy_core::turns::Turns;

/// Rows per transaction: a scheduler never holds many locks, nor a snapshot for long.
const ROWS: usize = 1000;

/// Makes some of the due jobs ready, whose turn it is; false when there are no more. None: somebody holds what it needs.
pub fn promote(queues: &[QueueDefinition], turns: &mut Turns) -> Result<Option<bool>> {
    transaction::run_unless_busy(|| identity::as_owner(|| promote::promote(queues, turns)))
}

/// Makes some of the due jobs of one queue ready; true when there may be more.
pub fn promote_of(queue: &QueueDefinition) -> Result<bool> {
    identity::as_owner(|| promote::promote_of(queue, clock::now(), ROWS))
}

/// The time for which the first job waits, `from` or later; None: not before one is enqueued.
pub fn first_waiting(from: i64) -> Result<Option<i64>> {
    let first = identity::as_owner(|| promote::first_waiting(Timestamp(from)))?;
    Ok(first.map(|first| first.0))
}

/// Announces the first ready job of each queue and priority: rows that came without a commit of ours,
/// by COMMIT PREPARED or by replication, or whose lock somebody else gave up. And has all that wait looked at.
/// Reads the queues itself: one that was registered since the scheduler has read them may have such rows too.
pub fn sweep() -> Result<()> {
    identity::as_owner(|| {
        for queue in &definition::all()? {
            let Some(slot) = cache::slot_of(queue) else {
                continue;
            };
            for priority in 0..crate::shared::queue_slot::PRIORITIES {
                if let Some(first) = live::first_ready(queue.queue_id, priority, 0)? {
                    pending::ready(slot, queue.key(), priority, first, 0);
                }
            }
        }
        pending::waiting_from(0);
        free_unwatched();
        if let Some(database_slot) = shared::expect().find_database(database::current()) {
            promise::recall_again(database_slot);
        }
        Ok(())
    })
}

static WATCHES: Plan = Plan::new("SELECT w.watch_id FROM pushy_internal.watch w", &[]);

/// Gives up the slots of watches that are gone, whose `unwatch` was prepared.
fn free_unwatched() {
    let shared = shared::expect();
    // Before the snapshot with which the rows are read.
    let had_slots = shared.watches_of_slots();
    if had_slots.is_empty() {
        return;
    }
    let there: FxHashSet<i32> = spi::connect(|spi| {
        let watches = spi.run(&WATCHES, params![]);
        watches.rows().map(|row| row.i32(1)).collect()
    });
    for watch_id in had_slots {
        if !there.contains(&watch_id) {
            shared.free_watch(watch_id);
        }
    }
}

/// Discards jobs whose queue was dropped while they were being enqueued; true when there may be more.
pub fn discard_orphans() -> Result<bool> {
    let lost = identity::as_owner(|| discard::orphans(ROWS))?;
    if let Some(first) = lost.first() {
        transaction::log_at_commit(
            Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!(
                    "jobs were discarded because their queue was dropped: {}",
                    lost.len()
                ),
            )
            .detail(format!("The first is job {first}.")),
        );
    }
    Ok(lost.len() == ROWS)
}

/// Gives up the slots of queues that are gone, and whose drop could not: it was prepared.
fn free_dropped(shared: &Shared, had_slots: Vec<QueueKey>, queues: &[QueueDefinition]) {
    let there: FxHashSet<i32> = queues.iter().map(|queue| queue.queue_id).collect();
    for key in had_slots {
        if !there.contains(&key.queue_id) {
            shared.free_queue(key);
        }
    }
}

/// All queues of this database, each with a slot in shared memory.
pub fn load_queues() -> Result<Vec<QueueDefinition>> {
    identity::as_owner(|| {
        let shared = shared::expect();
        // Before the snapshot with which the rows are read.
        let had_slots = shared.born_queues_of(database::current());
        let queues = definition::all()?;
        free_dropped(shared, had_slots, &queues);
        for queue in &queues {
            let is_new = shared.find_queue(queue.key()).is_none();
            if let Some(index) = cache::slot_of(queue) {
                // Also where the slot is older than this definition: a restart of the scheduler heals.
                let slot = &shared.queues()[index];
                let facts = queue.facts();
                let started = facts.standing.is_open() && (is_new || !slot.standing().is_open());
                slot.apply(&facts);
                if started {
                    shared.set_ready(index);
                    shared.wake_for(index);
                }
            }
        }
        shared.forget_kept_of(database::current());
        Ok(queues)
    })
}
