//! Jobs of a queue that workers outside have leased: how many, and who may change that.

use crate::errors::Result;
use crate::pg::heap::{self, Key};
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::value::Timestamp;
use crate::queue::definition::QueueDefinition;
use crate::shared::queue_slot::QueueSlot;
use crate::shared::{self, pending};
use pushy_core::lease_count::LeaseCount;

pub mod table {
    use std::sync::atomic::AtomicU64;

    /// The table, and the generation of its definition, whose columns were found to be these.
    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        JOB_ID "job_id",
        UNTIL "until",
        TOKEN "token",
        LEASED_AT "leased_at",
        SAID_AT "said_at",
        POSITION "position",
        QUEUE_ID "queue_id",
        CLAIMED_BY "claimed_by",
        SESSION "session",
        FRACTION "fraction",
        WORKER "worker",
        MESSAGE "message",
        INSIDE "inside",
        ENQUEUED_AT "enqueued_at",
    }
}

/// Held by each claim until its transaction ends: alone where leases are limited. Who holds it alone knows of every lease of the
/// queue, and that nobody adds one. Ends of leases come without. As the extension's owner, as all here.
pub fn lock(queue_id: i32, mode: LockMode) -> Result<()> {
    object_lock::lock("lease", number(queue_id), mode, || Ok(()))
}

/// Lets go of it, where nothing was claimed under it.
pub fn unlock(queue_id: i32, mode: LockMode) {
    object_lock::unlock("lease", number(queue_id), mode);
}

/// One look of workers outside at what is ready comes after the other: what a look has taken of the watermarks nobody else sees until it
/// has announced the rest, and who looks meanwhile would find nothing though jobs are ready. It waits for no other transaction meanwhile.
pub fn one_look<T>(queue_id: i32, look: impl FnOnce() -> Result<T>) -> Result<T> {
    begin_look(queue_id)?;
    let seen = look();
    end_look(queue_id);
    seen
}

/// The same for a claim, which waits for it before it takes the time or asks whether the queue is open. An error ends it, too.
pub fn begin_look(queue_id: i32) -> Result<()> {
    object_lock::lock("live_job", number(queue_id), LockMode::Alone, || Ok(()))
}

pub fn end_look(queue_id: i32) {
    object_lock::unlock("live_job", number(queue_id), LockMode::Alone);
}

/// Other parts are of workers' names.
fn number(queue_id: i32) -> Number {
    Number(queue_id as u32, 0)
}

/// As far as this transaction knows, which holds the lock alone or not. What executors hold is no lease to others: they have a permit.
pub fn number_of(queue: &QueueDefinition, slot: Option<usize>, is_alone: bool) -> Result<i64> {
    let slot = shared::get()
        .zip(slot)
        .map(|(shared, slot)| &shared.queues()[slot])
        .filter(|slot| slot.is(queue.key()));
    let before = slot.map(QueueSlot::lease_count);
    let (added, ended) = pending::leases_of(queue.key());
    if let Some(known) = before.and_then(LeaseCount::known) {
        return Ok(i64::from(known) + i64::from(added) - i64::from(ended));
    }
    let counted = count(queue.queue_id)?;
    if let (Some(slot), Some(before), true, (0, 0)) = (slot, before, is_alone, (added, ended)) {
        slot.know_lease_count(before, u32::try_from(counted).unwrap_or(0));
    }
    Ok(counted)
}

/// By a walk over all that were settled since the last vacuum, too.
pub fn count(queue_id: i32) -> Result<i64> {
    let mut count = 0;
    let shape = (table::COLUMNS, &table::CHECKED);
    let keys = [Key::int4_equals(1, queue_id)];
    heap::read_now("lease", shape, "lease_worker", &keys, |row| {
        count += i64::from(!row.bool(table::INSIDE));
        Ok(true)
    })?;
    Ok(count)
}

/// Whether one of its leases is over, and not yet taken back.
pub fn is_any_over(queue_id: i32, now: Timestamp) -> Result<bool> {
    let mut is_any = false;
    let shape = (table::COLUMNS, &table::CHECKED);
    let keys = [Key::int4_equals(1, queue_id)];
    heap::read_now("lease", shape, "lease_worker", &keys, |row| {
        is_any = row.timestamp(table::UNTIL) <= now;
        Ok(!is_any)
    })?;
    Ok(is_any)
}
