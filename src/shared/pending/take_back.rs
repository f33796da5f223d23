//! What is taken back of a transaction, or a savepoint, that is rolled back. In callbacks, as `announce`.

use crate::shared::cancels::Promise;
use crate::shared::database::Presence;
use crate::shared::pending::DefinitionChange;
use crate::shared::{numbers, Shared};

/// Gives up the slots of queues made at `level` or deeper, which nobody else has seen.
pub(in crate::shared::pending) fn free_created(
    shared: &Shared,
    changes: &[(i32, DefinitionChange)],
    level: i32,
) {
    for (made_at, change) in changes {
        if let DefinitionChange::Created(facts) = change {
            if *made_at >= level {
                shared.free_queue(facts.key);
            }
        }
    }
}

/// Queues whose drop at savepoint `level` or deeper was rolled back take jobs again. So do those of a prepared
/// transaction: this process does not learn how it ends.
pub(in crate::shared::pending) fn reopen(
    shared: &Shared,
    changes: &[(i32, DefinitionChange)],
    level: i32,
) {
    for (made_at, change) in changes {
        if let DefinitionChange::Dropped { key, .. } = change {
            if let Some(index) = shared.find_queue(*key).filter(|_| *made_at >= level) {
                shared.queues()[index].reopen();
            }
        }
    }
}

/// Sequences that a script has made at savepoint `level` or deeper are gone, and those from before are here again.
pub(in crate::shared::pending) fn forget_sequences(
    shared: &Shared,
    presence: &[(i32, Presence)],
    level: i32,
) {
    if presence.iter().any(|change| change.0 >= level) {
        if let Some(slot) = shared.find_database(crate::pg::database::current()) {
            numbers::forget_sequences(slot);
        }
    }
}

/// Cancels promised at `level` or deeper are not to be.
pub(in crate::shared::pending) fn free_cancels(
    shared: &Shared,
    cancels: &[(i32, Promise)],
    level: i32,
) {
    for (_, promise) in cancels.iter().filter(|cancel| cancel.0 >= level) {
        shared.cancels.withdraw(*promise);
    }
}
