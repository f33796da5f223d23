//! job_claim: ready jobs of a queue without a handler, leased to the caller.

use std::rc::Rc;
use std::sync::atomic::Ordering;

use pushy_core::job_state::JobState;

use crate::errors::{Error, Result};
use crate::job::claimed::Claimed;
use crate::job::lease::enter::{enter, Entered};
use crate::job::lease::leased_job::{self, Lease};
use crate::job::lease::ready::{free_leases, is_open, note_asked, take};
use crate::job::lease::untaken;
use crate::job::live::{self, Live};
use crate::job::moves;
use crate::job::moves::claim::ClaimLimit;
use crate::job::moves::failure_rows;
use crate::job::moves::lease::{self, Terms};
use crate::pg::function::{Answer, Call};
use crate::pg::memory::Context;
use crate::pg::value::Uuid;
use crate::pg::{clock, identity, transaction};
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::QueueDefinition;
use crate::queue::lease_length::{end_of, read_lease};
use crate::queue::leased;
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
    let lease_us = read_lease(call, "lease", 2)?;
    let worker = read_worker(call)?;
    let Entered { known, held } = enter(&name, worker.as_deref(), most as usize)?;
    // It waits for nothing from here on.
    let now = clock::now();
    let queue = &known.definition;
    if known.slot.is_none() {
        cache::slot_or_reason(queue).map_err(|why| why.error(queue))?;
    }
    let (until, session) = end_of(lease_us.unwrap_or(queue.lease_us), now);
    let terms = Terms {
        now,
        until,
        session,
        claimed_by: identity::current_user(),
        worker: worker.as_deref(),
    };
    note_asked(&known, now);
    let memory = memory();
    memory.reset();
    let leased = identity::as_owner(|| claim(&known, held, most, &terms, memory))?;
    if leased.is_empty() && most > 0 {
        identity::as_owner(|| untaken::warn(queue, now))?;
    }
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
    held: Vec<Live>,
    most: u32,
    terms: &Terms<'_>,
    memory: &Context,
) -> Result<Vec<Leased>> {
    let queue = &known.definition;
    let mut room = ClaimLimit {
        jobs: most,
        bytes: MOST_BYTES,
    };
    let mut claimed = claim_again(known, held, &mut room, terms, memory)?;
    let jobs = take_new(known, &room, terms, memory)?;
    leased::end_look(queue.queue_id);
    if jobs.is_empty() {
        return Ok(claimed);
    }
    let tokens = lease::lease(queue, &jobs, terms)?;
    let new = jobs.into_iter().zip(tokens);
    claimed.extend(new.map(|(job, token)| Leased { job, token }));
    Ok(claimed)
}

/// Locks jobs that are ready, where the queue is open and there is room.
fn take_new(
    known: &Rc<CachedQueue>,
    room: &ClaimLimit,
    terms: &Terms<'_>,
    memory: &Context,
) -> Result<Vec<Claimed>> {
    if room.is_used_up() || !is_open(known, terms.now) {
        return Ok(Vec::new());
    }
    if let (Some(shared), Some(slot)) = (shared::get(), known.slot) {
        // Before it looks: what comes from here on is told to LISTENers, and room for more if leases are limited.
        shared.queues()[slot].is_told.store(false, Ordering::SeqCst);
    }
    let free = free_leases(&known.definition, known.slot, true)?;
    let room = ClaimLimit {
        jobs: room.jobs.min(free),
        ..*room
    };
    if room.jobs == 0 {
        return Ok(Vec::new());
    }
    take(known, room, free, memory)
}

/// Leases again what the worker of this name holds already, as much as there is room for: who settles that and asks once more gets
/// the rest.
fn claim_again(
    known: &Rc<CachedQueue>,
    held: Vec<Live>,
    room: &mut ClaimLimit,
    terms: &Terms<'_>,
    memory: &Context,
) -> Result<Vec<Leased>> {
    let queue = &known.definition;
    let mut leased = Vec::with_capacity(held.len());
    for live in held {
        if room.is_used_up() {
            break;
        }
        if live.state != JobState::Running {
            continue;
        }
        let mut job = live.job;
        let is_his = |lease: &Lease| {
            lease.worker.as_deref() == terms.worker && lease.claimed_by == terms.claimed_by
        };
        let Some(lease) = leased_job::lease_of(job.id)?.filter(is_his) else {
            continue;
        };
        if job.give_backs >= moves::give_back::MAX_GIVE_BACKS {
            // Its worker may die of it each time.
            super::charge::charge(
                queue,
                known.slot,
                &job,
                &lease,
                super::charge::Why::AskedAgain,
            )?;
            continue;
        }
        let token = lease::lease_again(queue, known.slot, &job, &lease, terms)?;
        (job.args, job.args_bytes) = live::args(job.id, memory)?;
        *room = room.less(std::slice::from_ref(&job));
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
