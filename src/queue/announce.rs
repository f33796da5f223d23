//! What shared memory has of queues, announced when the transaction commits.

use pushy_core::standing::Standing;

use crate::errors::Result;
use crate::pg::database;
use crate::queue::cache;
use crate::queue::definition::QueueDefinition;
use crate::shared::database::Presence;
use crate::shared::queue_slot::QueueFacts;
use crate::shared::{self, pending};

/// A queue is new: it has a place from now on, but nobody runs it before the commit.
pub fn created(queue: &QueueDefinition) -> Result<()> {
    let facts = queue.facts();
    let unborn = QueueFacts {
        standing: facts.standing.with(Standing::UNBORN, true),
        ..facts
    };
    if shared::get().is_some_and(|shared| shared.ensure_queue(&unborn).is_none()) {
        return Err(cache::no_place(&queue.name));
    }
    pending::created(facts);
    mark_present();
    Ok(())
}

/// A queue's definition is another. One that has no place yet gets one after the commit, from the scheduler.
pub fn changed(queue: &QueueDefinition) {
    pending::defined(queue.facts());
    mark_present();
}

/// Whether a queue that came to be at home with this transaction has a place; takes one, as one that is new.
pub fn takes_place(queue: &QueueDefinition) -> bool {
    let Some(shared) = shared::get() else {
        return true;
    };
    let facts = queue.facts();
    if shared.find_queue(facts.key).is_some() {
        return true;
    }
    let unborn = QueueFacts {
        standing: facts.standing.with(Standing::UNBORN, true),
        ..facts
    };
    let has_place = shared.ensure_queue(&unborn).is_some();
    if has_place {
        pending::created(facts);
    }
    has_place
}

/// The launcher need not look for the extension here: it is there.
pub fn mark_present() {
    let here = shared::get().and_then(|shared| shared.ensure_database(database::current()));
    if here.is_some_and(|here| here.presence() != Presence::Present) {
        pending::presence(Presence::Present);
    }
}
