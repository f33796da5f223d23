//! Setting a queue aside that cannot run.

use crate::pg::BuiltinOid;
use pushy_core::standing::Standing;

use super::definition::{self, LockedQueue, QueueDefinition};
use super::eligibility;
use super::{cache, control_channel};
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, transaction};
use crate::shared::pending;
use crate::shared::statistics::QueueCounts;

static PARK: Plan = Plan::new(
    "UPDATE pushy_internal.queue SET parked = $2 WHERE queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
);

static LAST_CHANGE: Plan = Plan::new(
    "SELECT q.xmin FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

/// Waits, a moment at most, for the transaction that last changed the queue's row to end. Its announcement comes in the
/// middle of its commit, when its rows are visible and its catalog changes (a GRANT before queue_resume) are not yet.
fn await_last_change(queue_id: i32) {
    let changed_by = spi::connect(|spi| {
        let found = spi.run(&LAST_CHANGE, params![queue_id]);
        found.first().map(|row| row.oid(1).to_u32())
    });
    if let Some(xid) = changed_by {
        transaction::await_end(xid);
    }
}

/// Parks the queue, if it is still ineligible once its row is locked: somebody may have mended and resumed it meanwhile. No
/// executor tries a parked queue again before somebody resumes or registers it. False when somebody holds the queue's row, most likely
/// to alter it: the caller does not wait, and comes back. By the queue's number, because what the caller knows of it may be older
/// than the row that is locked.
pub fn park(queue_id: i32) -> Result<bool> {
    let mut is_held = false;
    let parked = identity::as_owner(|| {
        let queue = match definition::find_if_free(queue_id)? {
            LockedQueue::Locked(queue) => queue,
            LockedQueue::Held => {
                is_held = true;
                return Ok(None);
            }
            LockedQueue::Gone => return Ok(None),
        };
        await_last_change(queue_id);
        identity::accept_changes();
        let ineligible = eligibility::check(&queue).err();
        let reason = ineligible
            .filter(|_| queue.parked.is_none())
            .map(|ineligible| ineligible.reason());
        if let Some(reason) = &reason {
            spi::run(&PARK, params![queue_id, reason.as_str()]);
        }
        Ok(reason.map(|reason| (queue, reason)))
    })?;
    let Some((queue, reason)) = parked else {
        return Ok(!is_held);
    };
    let mut facts = queue.facts();
    facts.standing = facts.standing.with(Standing::PARKED, true);
    pending::defined(facts);
    let error = Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("queue \"{}\" is parked: {reason}", queue.name),
    )
    .hint("pushy.queue_explain says what to do; then run pushy.queue_resume.");
    transaction::log_at_commit(error);
    count_and_publish(&queue)?;
    Ok(true)
}

/// Counts that the queue is parked, and publishes it, when this transaction commits.
pub fn count_and_publish(queue: &QueueDefinition) -> Result<()> {
    if let Some(slot) = cache::slot_of(queue) {
        let parked = QueueCounts {
            parked: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &parked);
    }
    control_channel::parked(&queue.name)
}
