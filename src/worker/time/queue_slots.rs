//! The queues of a scheduler's database in shared memory: each has a slot, which says what its definition says.

use std::sync::atomic::Ordering;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::errors::Result;
use crate::pg::{database, identity};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, Shared};

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
pub(super) fn load_queues(generation: u64) -> Result<Vec<QueueDefinition>> {
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
