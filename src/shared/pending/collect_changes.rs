//! Changes of definitions and privileges, and of the extension's presence, collected for the end of the transaction.

use super::{with, DefinitionChange, Pending, PENDING};
use crate::pg::transaction;
use crate::shared;
use crate::shared::database::Presence;
use crate::shared::queue_slot::{QueueFacts, QueueKey};

/// A queue is new with this transaction, its slot made already and not runnable before the commit.
pub fn created(facts: QueueFacts) {
    change(DefinitionChange::Created(facts));
}

/// A queue's definition changes at commit.
pub fn defined(facts: QueueFacts) {
    change(DefinitionChange::Defined(facts));
}

/// A queue goes with this commit. From here on to the end of the transaction nobody else commits new jobs of it; answers
/// whether somebody does so at this moment.
pub fn dropped(key: QueueKey, forced: bool) -> bool {
    change(DefinitionChange::Dropped { key, forced });
    let Some(shared) = shared::get() else {
        return false;
    };
    let slot = shared.find_queue(key);
    slot.is_some_and(|index| shared.queues()[index].close())
}

/// Of a queue, or others.
pub fn privileges_changed(queue: Option<QueueKey>) {
    change(DefinitionChange::Privileges(queue));
}

pub fn subscriptions_changed() {
    change(DefinitionChange::Subscriptions);
}

fn change(change: DefinitionChange) {
    let level = transaction::nest_level();
    with(|pending| pending.changes.push((level, change)));
}

/// Whether this transaction has changed definitions or privileges: caches do not serve it then.
pub fn has_changes() -> bool {
    PENDING.with_borrow(Pending::changes_caches)
}

/// The extension appears in, or disappears from, this database at commit.
pub fn presence(presence: Presence) {
    let level = transaction::nest_level();
    with(|pending| pending.presence.push((level, presence)));
}
