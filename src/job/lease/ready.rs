//! What a queue has for workers outside at this moment: whether it starts jobs, how many more may be leased, and which are ready.

use std::sync::atomic::Ordering;

use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::live;
use crate::job::moves::claim::{self, ClaimLimit};
use crate::pg::memory::Context;
use crate::pg::value::Timestamp;
use crate::pg::{clock, snapshot};
use crate::queue::cache::CachedQueue;
use crate::queue::definition::QueueDefinition;
use crate::queue::leased;
use crate::shared;
use crate::shared::pending::{self, PermitOf};

/// Whether the queue starts jobs now. Without the preload nothing ends a lease.
pub(super) fn is_open(known: &CachedQueue, now: Timestamp) -> bool {
    let Some(shared) = shared::get() else {
        return false;
    };
    known.slot.is_some_and(|slot| {
        shared.lets_in_outside(slot, now.0)
            // Registered by this transaction: others see it when it has committed.
            || shared.lets_in_maker(slot, known.definition.standing(), now.0)
    })
}

/// Somebody asks for jobs: queue_explain says since when nobody has.
pub(super) fn note_asked(known: &CachedQueue, now: Timestamp) {
    if let Some((shared, slot)) = shared::get().zip(known.slot) {
        shared.queues()[slot]
            .asked_at
            .store(now.0, Ordering::Relaxed);
    }
}

/// How many jobs of the queue may be leased beside those that are, and beside what executors have in hand that have begun when the queue
/// had a handler. `is_alone`: the caller holds the lock of its leases so. As the extension's owner.
pub(super) fn free_leases(
    queue: &QueueDefinition,
    slot: Option<usize>,
    is_alone: bool,
) -> Result<u32> {
    let Some(limit) = queue.concurrency else {
        return Ok(u32::MAX);
    };
    let at_work = shared::get()
        .zip(slot)
        .map_or(0, |(shared, slot)| shared.queues()[slot].at_work_inside());
    let held = leased::number_of(queue, slot, is_alone)? + i64::from(at_work);
    Ok((i64::from(limit) - held).clamp(0, i64::from(u32::MAX)) as u32)
}

/// Locks ready jobs, in order, passing over those that somebody holds. Unless this transaction commits, others look again. `free`: how
/// many may be leased. The caller has the look (`leased::begin_look`).
pub(super) fn take(
    known: &CachedQueue,
    room: ClaimLimit,
    free: u32,
    memory: &Context,
) -> Result<Vec<Claimed>> {
    let queue = &known.definition;
    let (Some(shared), Some(index)) = (shared::get(), known.slot) else {
        return Ok(Vec::new());
    };
    let key = queue.key();
    let slot = &shared.queues()[index];
    if !pending::has_permit(index, key) && slot.take_permit_of_claim() {
        // Until this transaction ends, what it has taken of the watermarks is neither ready nor leased: jobs_wait waits for it.
        pending::holds_permit(index, key, PermitOf::Claim);
    }
    slot.signalled_at.store(0, Ordering::SeqCst);
    let claimed = look(known, index, room, memory)?;
    if slot.may_be_ready() {
        shared.set_ready(index);
        // Else a lease that ends lets others in.
        if free > claimed.len() as u32 {
            shared.wake_for(index);
        }
    }
    Ok(claimed)
}

/// Takes what was announced, locks the jobs that there is room for, and announces the rest.
fn look(
    known: &CachedQueue,
    index: usize,
    room: ClaimLimit,
    memory: &Context,
) -> Result<Vec<Claimed>> {
    let (shared, queue) = (shared::expect(), &known.definition);
    let (key, slot) = (queue.key(), &shared.queues()[index]);
    let mut claimed: Vec<Claimed> = Vec::new();
    for (priority, from) in pending::take_watermarks_and_own(shared, index, key) {
        let room = room.less(&claimed);
        let mut held_at = None;
        let more = {
            // The latest, because a job that the transaction's own does not show may be ready.
            let snapshot = snapshot::take_latest();
            claim::claim(
                queue.queue_id,
                priority,
                from,
                room,
                &snapshot,
                memory,
                |_, position| held_at = held_at.or(Some(position)),
            )?
        };
        if let Some(position) = held_at {
            shared.note_held(index, key, priority, position as u64);
        }
        if more.passed_over {
            slot.pass_over();
        }
        if let Some(last) = more.rows.last().filter(|_| more.is_enough) {
            shared.announce(index, key, priority, last.position as u64 + 1);
        }
        claimed.extend(more.rows);
        if more.is_enough {
            break;
        }
    }
    Ok(claimed)
}

/// Whether there is a ready job, whoever holds it. What was announced and is gone is forgotten, as by a claim that finds nothing. As
/// the extension's owner.
pub(super) fn is_any_ready(queue: &QueueDefinition, index: usize) -> Result<bool> {
    let shared = shared::expect();
    let (slot, key) = (&shared.queues()[index], queue.key());
    leased::one_look(queue.queue_id, || {
        let noted = slot.signalled_at.load(Ordering::SeqCst);
        for (priority, from) in pending::take_watermarks(shared, index, key) {
            if let Some(first) = live::first_ready(queue.queue_id, priority, from)? {
                shared.announce(index, key, priority, first as u64);
            }
        }
        // Before the look is over: who looks next takes what was announced.
        let is_any = slot.may_be_ready();
        if is_any {
            // Before the bit: whoever else is told of it may die before it claims.
            shared.expect_claim(index, key, clock::now().0);
            shared.set_ready(index);
        } else {
            slot.forget_claimer(noted);
        }
        Ok(is_any)
    })
}
