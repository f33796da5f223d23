//! job_claim: ready jobs of a queue without a handler, leased to the caller.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::errors::{Error, Result};
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job;
use crate::job::live;
use crate::job::moves;
use crate::job::moves::claim::{self, ClaimLimit};
use crate::job::moves::failure_rows;
use crate::job::moves::lease::{self, Terms};
use crate::pg::function::{Answer, Call};
use crate::pg::memory::Context;
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::value::{Timestamp, Uuid};
use crate::pg::{clock, identity, random, snapshot, transaction};
use crate::queue::alter;
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::QueueDefinition;
use crate::queue::leased;
use crate::queue::privilege::{self, Privilege};
use crate::shared::queue_slot::{NOTHING, PRIORITIES};
use crate::shared::{self, pending};
use crate::{row, sql_function};

sql_function!(pushy_job_claim_v1, |call| {
    transaction::require_writable(c"pushy.job_claim()");
    job_claim(call)
});

/// Most jobs of one claim, and most bytes of their arguments: what they are copied to is the session's memory.
const MOST_JOBS: i32 = 1_000;
const MOST_BYTES: usize = 16 << 20;
/// Bytes of a worker's name.
const MOST_NAME: usize = 200;

/// A job with the token that it was leased under.
struct Leased {
    job: Claimed,
    token: Uuid,
}

fn job_claim(call: Call) -> Result<Answer> {
    let name = call.text("queue", 0)?;
    let most = read_most(call)?;
    let worker = read_worker(call)?;
    let known = cache::get(&name)?;
    let queue = &known.definition;
    let caller = identity::current_user();
    privilege::require(queue, &known.grants, caller, Privilege::Claim)?;
    queue.require_outside()?;
    alter::require_home(queue)?;
    let now = clock::now();
    let lease_us = read_lease(call, "lease", 2)?.unwrap_or(queue.lease_us);
    let (until, session) = end_of(lease_us, now);
    let terms = Terms {
        now,
        until,
        session,
        claimed_by: caller,
        worker: worker.as_deref(),
    };
    note_asked(&known, now);
    let memory = memory();
    memory.reset();
    let leased = identity::as_owner(|| claim(&known, most, &terms, memory))?;
    call.answer_rows(|rows| {
        for one in &leased {
            rows.put(&columns(queue, one, &terms)?);
        }
        Ok(())
    })
}

fn read_most(call: Call) -> Result<u32> {
    match call.opt_i32(1) {
        None => Ok(1),
        Some(most @ 0..=MOST_JOBS) => Ok(most as u32),
        Some(most) => Err(Error::out_of_range(
            "max_jobs",
            most,
            &format!("0 (none) to {MOST_JOBS}"),
        )),
    }
}

fn read_worker(call: Call) -> Result<Option<String>> {
    let worker = call.opt_text(3)?;
    if let Some(long) = worker.as_ref().filter(|name| name.len() > MOST_NAME) {
        return Err(Error::out_of_range(
            "worker",
            format!("a name of {} bytes", long.len()),
            &format!("up to {MOST_NAME} bytes"),
        ));
    }
    Ok(worker)
}

/// How long a lease is to be (µs); 0: until the session ends; None: as the queue says.
pub(super) fn read_lease(call: Call, name: &str, index: usize) -> Result<Option<i64>> {
    match call.opt_interval_us(name, index)? {
        Some(us) if us < 0 => Err(Error::out_of_range(
            name,
            call.shown_interval(index),
            "an interval above 0, or 0 for a claim that ends with this session",
        )),
        lease_us => Ok(lease_us),
    }
}

/// When a lease of so long (µs) ends, and the session that it ends with.
pub(super) fn end_of(lease_us: i64, now: Timestamp) -> (Timestamp, Option<i64>) {
    // Without the preload nothing is claimed.
    match shared::get().filter(|_| lease_us == 0) {
        Some(shared) => (Timestamp::INFINITY, Some(shared.enter_session())),
        None => (now.plus_us(lease_us), None),
    }
}

/// Whether the queue starts jobs now. Without the preload nothing ends a lease.
fn is_open(known: &CachedQueue, now: Timestamp) -> bool {
    let Some(shared) = shared::get() else {
        return false;
    };
    known
        .slot
        .is_some_and(|slot| shared.lets_in_outside(slot, now.0))
}

/// Somebody asks for jobs: queue_explain says since when nobody has.
pub(super) fn note_asked(known: &CachedQueue, now: Timestamp) {
    if let Some((shared, slot)) = shared::get().zip(known.slot) {
        shared.queues()[slot]
            .asked_at
            .store(now.0, Ordering::Relaxed);
    }
}

/// For the arguments of one call's jobs.
fn memory() -> &'static Context {
    thread_local! {
        // For the life of the session, because an error may jump out while it is used.
        static OF_CLAIM: &'static Context = Box::leak(Box::new(Context::new(c"pushy job_claim")));
    }
    OF_CLAIM.with(|context| *context)
}

fn claim(
    known: &Rc<CachedQueue>,
    most: u32,
    terms: &Terms<'_>,
    memory: &Context,
) -> Result<Vec<Leased>> {
    let queue = &known.definition;
    if let Some(worker) = terms.worker {
        // Who asks again waits for the call of which it had no answer: that may be about to lease jobs to it.
        // Others of the queue wait with it whose names have the same number, which is a secret of the cluster.
        let part = (random::keyed_hash(worker.as_bytes()) % u64::from(u16::MAX)) as u16 + 1;
        let number = Number(queue.queue_id as u32, part);
        object_lock::lock("lease", number, LockMode::Alone, || Ok(()))?;
    }
    let mut leased = again(known, most, terms, memory)?;
    if !is_open(known, terms.now) {
        return Ok(leased);
    }
    if let (Some(shared), Some(slot)) = (shared::get(), known.slot) {
        // Before it looks: what comes from here on is told to LISTENers, and room for more if leases are limited.
        shared.queues()[slot].is_told.store(false, Ordering::SeqCst);
    }
    let mut room = ClaimLimit {
        jobs: most.saturating_sub(leased.len() as u32),
        bytes: MOST_BYTES,
    };
    if queue.concurrency.is_some() {
        // One claim after the other: what the one before has leased is counted by the next.
        object_lock::take("lease", queue.queue_id as u32, || Ok(()))?;
    }
    let free = free_leases(queue)?;
    room.jobs = room.jobs.min(free);
    if room.jobs == 0 {
        return Ok(leased);
    }
    let jobs = take(known, room, free, memory)?;
    if jobs.is_empty() {
        return Ok(leased);
    }
    let tokens = lease::lease(queue, &jobs, terms)?;
    let new = jobs.into_iter().zip(tokens);
    leased.extend(new.map(|(job, token)| Leased { job, token }));
    Ok(leased)
}

/// How many jobs of the queue may be leased beside those that are. As the extension's owner.
pub(super) fn free_leases(queue: &QueueDefinition) -> Result<u32> {
    let Some(limit) = queue.concurrency else {
        return Ok(u32::MAX);
    };
    let held = leased::count(queue.queue_id)?;
    Ok((i64::from(limit) - held).clamp(0, i64::from(u32::MAX)) as u32)
}

/// What the worker of this name holds already: its last call was answered, and the answer was lost.
fn again(
    known: &Rc<CachedQueue>,
    most: u32,
    terms: &Terms<'_>,
    memory: &Context,
) -> Result<Vec<Leased>> {
    let Some(worker) = terms.worker else {
        return Ok(Vec::new());
    };
    let queue = &known.definition;
    let held = leased_job::of_worker(queue.queue_id, worker, most as usize)?;
    let mut leased = Vec::with_capacity(held.len());
    for id in held {
        let Some(live) = live::lock(id)? else {
            continue;
        };
        let Some(lease) = leased_job::lease_of(id)? else {
            continue;
        };
        if lease.worker.as_deref() != Some(worker) {
            continue;
        }
        let mut job = live.job;
        if job.give_backs >= moves::give_back::MAX_GIVE_BACKS {
            // Its worker may die of it each time.
            super::expire::charge(
                queue,
                known.slot,
                &job,
                &lease,
                super::expire::Why::AskedAgain,
            )?;
            continue;
        }
        let token = lease::lease_again(queue, known.slot, &job, &lease, terms)?;
        job.args = live::args(id, memory)?;
        leased.push(Leased { job, token });
    }
    Ok(leased)
}

/// Locks ready jobs, in order, passing over those that somebody holds. Unless this transaction commits, others look again. `free`: how
/// many may be leased.
fn take(
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
    let mut claimed: Vec<Claimed> = Vec::new();
    if !pending::has_permit(index, key) && slot.take_permit_of_session() {
        // Until this transaction ends, what it has taken of the watermarks is neither ready nor leased: jobs_wait waits for it.
        pending::holds_permit(index, key);
    }
    slot.signalled_at.store(0, Ordering::SeqCst);
    shared.clear_ready(index);
    for priority in 0..PRIORITIES {
        let from = shared.take_low(index, priority);
        if from == NOTHING {
            continue;
        }
        pending::claimed(index, key, priority, from);
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
    if slot.may_be_ready() {
        shared.set_ready(index);
        // Else a lease that ends lets others in.
        if free > claimed.len() as u32 {
            shared.wake_for(index);
        }
    }
    Ok(claimed)
}

/// Whether there is a ready job, whoever holds it. What was announced and is gone is forgotten, as by a claim that finds nothing. As
/// the extension's owner.
pub(super) fn is_any_ready(queue: &QueueDefinition, index: usize) -> Result<bool> {
    let shared = shared::expect();
    let (slot, key) = (&shared.queues()[index], queue.key());
    let noted = slot.signalled_at.load(Ordering::SeqCst);
    shared.clear_ready(index);
    for priority in 0..PRIORITIES {
        let from = shared.take_low(index, priority);
        if from == NOTHING {
            continue;
        }
        pending::claimed(index, key, priority, from);
        if let Some(first) = live::first_ready(queue.queue_id, priority, from)? {
            shared.announce(index, key, priority, first as u64);
        }
    }
    let is_any = slot.may_be_ready();
    if is_any {
        // Before the bit: whoever else is told of it may die before it claims.
        shared.expect_claim(index, key, clock::now().0);
        shared.set_ready(index);
    } else {
        slot.forget_claimer(noted);
    }
    Ok(is_any)
}

/// The columns of type pushy.claimed_job.
fn columns(queue: &QueueDefinition, leased: &Leased, terms: &Terms<'_>) -> Result<Vec<Answer>> {
    let job = &leased.job;
    let last_error = if job.attempt > 0 {
        identity::as_owner(|| failure_rows::last_message(job.id, queue.queue_id))?
    } else {
        None
    };
    Ok(row![
        job.id,
        leased.token,
        queue.name.as_str(),
        job.args,
        job.attempt + 1,
        job.max_attempts.unwrap_or(queue.max_attempts),
        i32::from(job.priority),
        job.run_at,
        job.enqueued_at,
        identity::role_name_or_null(job.enqueued_by),
        job.unique_key.as_deref(),
        job.caused_by,
        job.depth,
        terms.until,
        last_error,
    ]
    .to_vec())
}
