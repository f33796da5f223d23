//! Before a transaction commits or is prepared: what it adds to is still there, or it fails.

use std::cell::{Cell, RefCell};

use crate::errors::{Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::release::AtRelease;
use crate::pg::transaction_end::Before;
use crate::pg::{heap, invalidation};
use crate::pg::{identity, transaction};
use crate::shared::cancels::Promise;
use crate::shared::pending::{DefinitionChange, LeaseChange, Pending, PermitOf, Why, PENDING};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, Shared};
use crate::ABOVE_PENDING;

/// After the other observers, who may still enqueue.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub(in crate::shared::pending) fn before(what: Before) -> Result<()> {
    if what == Before::Prepare {
        refuse_permits()?;
        refuse_leases()?;
        keep_promises()?;
        (ABOVE_PENDING.publish_left_out)()?;
    }
    if PENDING.with_borrow(|pending| pending.unlogged) {
        (ABOVE_PENDING.leave_marker)()?;
    }
    PENDING.with_borrow_mut(|pending| {
        let Some(shared) = shared::get() else {
            return Ok(());
        };
        let Pending {
            announcements,
            changes,
            leases,
            ..
        } = pending;
        for change in leases {
            // Before anybody can see that they have ended.
            let slot = shared.find_queue(change.key);
            change.round = slot.map(|slot| shared.queues()[slot].lease_count().round());
        }
        let has_changed = what == Before::Commit
            && announcements
                .iter()
                .any(|announcement| announcement.why == Why::Ready)
            && has_changed_catalogs();
        if has_changed {
            END_CHANGING.prepare();
            END_CHANGING.call();
        }
        for announcement in announcements {
            if announcement.why != Why::Ready {
                continue;
            }
            if has_changed {
                begin_changing(shared, announcement.index);
            }
            let slot = &shared.queues()[announcement.index];
            if what == Before::Commit {
                slot.begin_announcing();
                announcement.begun = true;
            }
            // In this order: see `QueueSlot::close`.
            if announcement.promised
                && !slot.takes_jobs_of(announcement.key)
                && !is_forced(changes, announcement.key)
            {
                return Err(refuse(slot.is(announcement.key), announcement.key));
            }
        }
        Ok(())
    })
}

/// What this session knew of catalogs when it last collected something: a change of its own since, or of somebody's.
static CATALOGS: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(1));

fn has_changed_catalogs() -> bool {
    // What the last statement has changed, too.
    heap::advance_command();
    CATALOGS.replace(invalidation::changes()) != invalidation::changes()
}

/// The slots of queues of which this transaction has said that it changes something.
static CHANGING: PerProcess<RefCell<Vec<usize>>> = PerProcess::new(RefCell::new(Vec::new()));

#[cold]
fn begin_changing(shared: &Shared, index: usize) {
    CHANGING.with_borrow_mut(|all| {
        all.push(index);
        shared.queues()[index].begin_changing();
    });
}

/// Everybody can know by now what it has changed.
static END_CHANGING: AtRelease = AtRelease::new(end_changing);

fn end_changing() {
    CHANGING.with(|cell| {
        let Some((shared, mut all)) = shared::get().zip(cell.try_borrow_mut().ok()) else {
            return;
        };
        all.drain(..)
            .for_each(|index| shared.queues()[index].end_changing());
    });
}

/// What queue_run has run holds a permit of its queue, which nobody could give back at COMMIT PREPARED. Without it, others would
/// run the next job of a queue of concurrency 1 before this transaction has ended.
fn refuse_permits() -> Result<()> {
    let held = PENDING.with_borrow(|pending| {
        let mut permits = pending.permits.iter();
        // Who claims for workers outside is told by `refuse_leases`.
        let runs = permits.find(|held| held.2 == PermitOf::Jobs);
        runs.map(|held| held.1)
    });
    let Some(key) = held else { return Ok(()) };
    let name = (ABOVE_PENDING.queue_name)(key.queue_id).unwrap_or_else(|| key.queue_id.to_string());
    Err(Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!(
            "cannot PREPARE a transaction that has called pushy.queue_run() for queue \"{name}\""
        ),
    )
    .hint("COMMIT it, or let executors run the jobs."))
}

/// A worker is answered its claim before the transaction is prepared, and its lease would run before COMMIT PREPARED.
fn refuse_leases() -> Result<()> {
    let said = |change: &LeaseChange| change.said_at != 0;
    if !PENDING.with_borrow(|pending| pending.leases.iter().any(said)) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that has claimed jobs or extended their leases",
    )
    .hint(
        "Claim jobs in a transaction of their own, and complete them in the one that is prepared.",
    ))
}

/// Cancels that are promised at the commit of this session are carried out by the transaction that is prepared.
fn keep_promises() -> Result<()> {
    let promises: Vec<Promise> =
        PENDING.with_borrow(|pending| pending.cancels.iter().map(|asked| asked.1).collect());
    if promises.is_empty() {
        return Ok(());
    }
    let each = || {
        promises
            .iter()
            .copied()
            .try_for_each(ABOVE_PENDING.cancel_to_prepare)
    };
    // A commit has no snapshot.
    transaction::with_snapshot(|| identity::as_owner(each))
}

/// Whether this transaction itself drops the queue with all its jobs.
fn is_forced(changes: &[(i32, DefinitionChange)], dropped: QueueKey) -> bool {
    changes.iter().any(
        |(_, change)| matches!(change, DefinitionChange::Dropped { key, forced: true } if *key == dropped),
    )
}

/// Jobs of a queue that is gone would be lost in silence: the transaction that adds them fails.
#[cold]
fn refuse(is_there: bool, key: QueueKey) -> Error {
    let name = (ABOVE_PENDING.queue_name)(key.queue_id).unwrap_or_else(|| key.queue_id.to_string());
    if !is_there {
        return Error::no_such_queue(&name)
            .detail("It was dropped after this transaction had enqueued jobs into it.");
    }
    Error::new(
        SqlState::OBJECT_IN_USE,
        format!("queue \"{name}\" is being dropped"),
    )
    .detail("This transaction has enqueued jobs into it.")
    .hint("Try again when the transaction that drops it has ended.")
}
