//! job_claim: ready jobs of a queue without a handler, leased to the caller.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use crate::errors::{Error, Result};
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job;
use crate::job::lease::length::{end_of, read_lease};
use crate::job::lease::ready::{free_leases, is_open, note_asked, take};
use crate::job::live;
use crate::job::moves;
use crate::job::moves::claim::ClaimLimit;
use crate::job::moves::failure_rows;
use crate::job::moves::lease::{self, Terms};
use crate::pg::function::{Answer, Call};
use crate::pg::memory::Context;
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::value::Uuid;
use crate::pg::{clock, identity, random, transaction};
use crate::queue::alter;
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::QueueDefinition;
use crate::queue::privilege::{self, Privilege};
use crate::shared;
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
    let mut leased = claim_again(known, most, terms, memory)?;
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

/// What the worker of this name holds already: its last call was answered, and the answer was lost.
fn claim_again(
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
