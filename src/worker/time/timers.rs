//! What a scheduler does at its times: makes due jobs ready, discards those whose queue is gone, gives queues their slots.

use std::sync::atomic::Ordering;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::errors::{Error, Result, SqlState};
use crate::job::moves::discard;
use crate::job::moves::promote;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, identity, transaction, BuiltinOid, Oid};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, Shared};
use pushy_core::turns::Turns;

/// Rows per transaction: a scheduler never holds many locks, nor a snapshot for long.
const ROWS: usize = 1000;

/// Makes some of the due jobs ready, whose turn it is; false when there are no more. None: somebody holds what it needs.
pub fn promote(queues: &[QueueDefinition], turns: &mut Turns) -> Result<Option<bool>> {
    transaction::run_unless_busy(|| identity::as_owner(|| promote::promote(queues, turns)))
}

/// Makes some of the due jobs of one queue ready; true when there may be more.
pub fn promote_unheld_of(queue: &QueueDefinition) -> Result<bool> {
    identity::as_owner(|| promote::promote_unheld_of(queue, clock::now(), ROWS))
}

static PREPARED_HERE: Plan = Plan::new(
    "SELECT p.transaction::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_prepared_xact() p WHERE p.dbid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

/// Transactions of this database that are prepared.
pub fn prepared_here() -> Result<Vec<u32>> {
    if transaction::most_prepared() == 0 {
        return Ok(Vec::new());
    }
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let found = spi.run(&PREPARED_HERE, params![Oid::from(database::current())]);
            found.rows().map(|row| row.i64(1) as u32).collect()
        }))
    })
}

/// The time for which the first job waits, `from` or later; None: not before one is enqueued.
pub fn first_waiting(from: i64) -> Result<Option<i64>> {
    let first = identity::as_owner(|| promote::first_waiting(Timestamp(from)))?;
    Ok(first.map(|first| first.0))
}

/// Discards jobs whose queue was dropped while they were being enqueued, of some pages of the table from page `from` on; answers the page
/// to go on with, None behind the last.
pub fn discard_orphans(from: u32) -> Result<Option<u32>> {
    let (lost, next) = identity::as_owner(|| discard::orphans(from, ROWS))?;
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
    Ok(next)
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

/// A definition that commits change while it is read is read again so often at most, before others have their turn.
const MOST_READS: usize = 3;

/// All queues of this database, each with a slot in shared memory. `generation`: the counter of definitions before.
pub fn load_queues(generation: u64) -> Result<Vec<QueueDefinition>> {
    identity::as_owner(|| {
        let shared = shared::expect();
        // Before the snapshot with which the rows are read.
        let had_slots = shared.born_queues_of(database::current());
        let said: FxHashMap<i32, u64> = had_slots
            .iter()
            .filter_map(|key| {
                let index = shared.find_queue(*key)?;
                Some((key.queue_id, shared.queues()[index].said()))
            })
            .collect();
        let queues = definition::all()?;
        free_dropped(shared, had_slots, &queues);
        for queue in &queues {
            take_up(
                shared,
                queue,
                said.get(&queue.queue_id).copied(),
                generation,
            )?;
        }
        shared.forget_kept_of(database::current());
        Ok(queues)
    })
}

/// Has shared memory say what the definition says, unless a commit has said something later there. `said`: how many had when the
/// definition was read; None: the queue had no slot.
fn take_up(
    shared: &Shared,
    queue: &QueueDefinition,
    said: Option<u64>,
    generation: u64,
) -> Result<()> {
    let is_new = shared.find_queue(queue.key()).is_none();
    let Some(index) = cache::slot_of(queue) else {
        return Ok(());
    };
    // Also where the slot is older than this definition: a restart of the scheduler heals.
    let slot = &shared.queues()[index];
    let was_open = !is_new && slot.standing().is_open();
    let is_current = match said {
        Some(said) => slot.apply_unless_said(&queue.facts(), said),
        // Who has changed it meanwhile found no slot.
        None => {
            slot.apply_unless_said(&queue.facts(), slot.said()) && definitions() == Some(generation)
        }
    };
    let mut reads = 0;
    let mut is_current = is_current;
    // Bounded: by MOST_READS.
    while !is_current && reads < MOST_READS {
        reads += 1;
        let said = slot.said();
        let Some(queue) = definition::find_by_id(queue.queue_id)? else {
            break;
        };
        is_current = slot.apply_unless_said(&queue.facts(), said);
    }
    if slot.standing().is_open() && !was_open {
        shared.set_ready(index);
        shared.wake_for(index);
    }
    Ok(())
}

fn definitions() -> Option<u64> {
    let database_slot = shared::expect().find_database(database::current())?;
    Some(database_slot.definitions.load(Ordering::SeqCst))
}
