//! available → running, and back, for a procedure: its transactions come and go, so no row lock can be the claim. What an executor
//! holds is a lease that ends with the executor: until it says how the job ended, the token of the lease is where all can see it.
//!
//! A lease whose token nobody shows is lost: its executor was ended, or the server. Whoever finds one puts the job back as if nothing
//! had been written, which is what an executor of functions leaves when it ends. What follows, a charge or none, is the flight
//! recorder's business, and the same for both. `core/tests/procedure_model/` walks every interleaving.

use pushy_core::job_state::{JobEvent, JobState};

use super::complete::{self, Completed};
use super::retry_or_discard::{self, Attempt};
use super::rows::announce_ready;
use super::{cancel, claim, give_back, lease, snooze, step};
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job;
use crate::job::live::{self, Live};
use crate::params;
use crate::pg::random;
use crate::pg::spi::{self, Plan};
use crate::pg::value::{Char, Timestamp, Uuid};
use crate::pg::BuiltinOid;
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::{self, Shared};

const CLAIMED: JobState = JobState::Available.after(JobEvent::Claim);
const FREE: JobState = CLAIMED.after(JobEvent::Release);

// A log and a checkpoint may come of it, in transactions of which the job's end knows nothing.
static TAKE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET state = $2, position = NULL, leased = true, snoozes = COALESCE(snoozes, 0) \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID, BuiltinOid::CHAROID],
);

// A row that is there is of a claim that is over: nothing holds a job that is ready.
static INSERT: Plan = Plan::new(
    "INSERT INTO pushy_internal.lease (job_id, token, position, queue_id, until, leased_at, said_at, claimed_by, inside, enqueued_at) \
     VALUES ($1, $2, $3, $4, 'infinity', $5, $5, $6, true, $7) \
     ON CONFLICT (job_id) DO UPDATE SET token = EXCLUDED.token, position = EXCLUDED.position, queue_id = EXCLUDED.queue_id, \
            until = EXCLUDED.until, leased_at = EXCLUDED.leased_at, said_at = EXCLUDED.said_at, claimed_by = EXCLUDED.claimed_by, \
            enqueued_at = EXCLUDED.enqueued_at, worker = NULL, session = NULL, fraction = NULL, message = NULL, inside = true",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::UUIDOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::OIDOID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Holds a job whose row this transaction has locked, ready as it is, and which this process has in its batch. Answers what tells
/// this claim from every other. As the extension's owner.
pub fn hold(queue: &QueueDefinition, job: &Claimed, now: Timestamp) -> Result<Uuid> {
    let token = random::secret_uuid()?;
    spi::run(&TAKE, params![job.id, Char(CLAIMED.code())]);
    spi::run(
        &INSERT,
        params![
            job.id,
            token,
            job.position,
            queue.queue_id,
            now,
            queue.run_as,
            job.enqueued_at,
        ],
    );
    Ok(token)
}

/// What became of a job that an executor has held.
pub enum Found {
    /// Its row is locked by this transaction, and may move.
    Mine(Claimed),
    /// Somebody else has ended the claim: the job is cancelled, or its queue is dropped.
    Gone,
    /// Somebody has the job's row.
    Busy,
}

/// Locks the row of a job that this process holds. As the extension's owner.
pub fn find(job: i64, token: Uuid) -> Result<Found> {
    let is_mine = || {
        Ok::<_, crate::errors::Error>(
            leased_job::lease_of(job)?.is_some_and(|it| it.token == token),
        )
    };
    if !is_mine()? {
        return Ok(Found::Gone);
    }
    Ok(match live::lock_if_free(job)? {
        Some(live) if live.state == CLAIMED && is_mine()? => Found::Mine(live.job),
        Some(_) => Found::Gone,
        None if live::get(job)?.is_none() => Found::Gone,
        None => Found::Busy,
    })
}

/// The procedure has returned.
pub fn complete(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: Claimed,
    done: Completed,
) -> Result<()> {
    let mut job = job;
    job.args = live::args_here(job.id)?;
    lease::end_with(queue, job.id, CLAIMED)?;
    complete::complete(queue, slot, &[job], claim::claimed_in(), &[done])
}

/// The attempt has failed.
pub fn fail(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    failed: &Attempt<'_>,
) -> Result<()> {
    lease::end_with(queue, job.id, CLAIMED)?;
    retry_or_discard::fail(queue, slot, CLAIMED, job, failed).map(|_| ())
}

/// The procedure has put its job off.
pub fn snooze(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    due: Timestamp,
) -> Result<()> {
    lease::end_with(queue, job.id, CLAIMED)?;
    snooze::snooze(queue, slot, CLAIMED, job, due)
}

/// Its cancel was promised.
pub fn cancel(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    started_at: Option<Timestamp>,
) -> Result<()> {
    lease::end_with(queue, job.id, CLAIMED)?;
    cancel::cancel(queue, slot, CLAIMED, job, started_at)
}

/// Somebody has cut the attempt short, or may cancel the job: back to its place, uncharged.
pub fn give_back(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    position: i64,
    is_counted: bool,
) -> Result<()> {
    if is_counted {
        give_back::count(job.id)?;
    }
    lease::release_held(queue, slot, job, position)
}

static PUT_BACK: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET state = $2, position = $3, leased = NULL WHERE id OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
    ],
);

static INSIDE: Plan = Plan::new(
    "SELECT l.job_id, l.token FROM pushy_internal.lease l WHERE l.inside ORDER BY l.job_id",
    &[],
);

static OF_JOB: Plan = Plan::new(
    "SELECT l.token, l.position FROM pushy_internal.lease l WHERE l.job_id OPERATOR(pg_catalog.=) $1 AND l.inside",
    &[BuiltinOid::INT8OID],
);

/// Puts back every job whose executor has ended without a word; false when somebody has a row that is needed. Whoever calls it at the
/// same time does the same. As the extension's owner.
pub fn recover(shared: &Shared) -> Result<bool> {
    let inside: Vec<(i64, Uuid)> = spi::connect(|spi| {
        let found = spi.run(&INSIDE, params![]);
        found.rows().map(|row| (row.i64(1), row.uuid(2))).collect()
    });
    let mut all = true;
    for (id, token) in inside {
        if shared.shows_hold(token) {
            continue;
        }
        match live::lock_if_free(id)? {
            // Of a queue that a load has brought, once that is at home here.
            Some(live) if is_elsewhere(live.queue_id)? => {}
            Some(live) => {
                put_back(shared, live)?;
            }
            None => all &= live::get(id)?.is_none(),
        }
    }
    Ok(all)
}

fn is_elsewhere(queue_id: i32) -> Result<bool> {
    // One that a load has not brought yet is elsewhere, too: its jobs may have come before.
    let queue = definition::find_by_id(queue_id)?;
    Ok(queue.map_or(queue_id < 0, |queue| !queue.is_home()))
}

/// A job whose row this transaction has locked, as its executor found it if that has ended without a word. By the token of its lease,
/// because another executor may have the job still in its batch, from a run before.
pub fn put_back(shared: &Shared, live: Live) -> Result<Live> {
    if live.state != CLAIMED {
        return Ok(live);
    }
    let id = live.job.id;
    let lease = spi::connect(|spi| {
        let found = spi.run(&OF_JOB, params![id]);
        found.first().map(|row| (row.uuid(1), row.i64(2)))
    });
    // None: a worker's outside.
    let Some((_, position)) = lease.filter(|(token, _)| !shared.shows_hold(*token)) else {
        return Ok(live);
    };
    let state = step(id, CLAIMED, JobEvent::Release)?;
    debug_assert!(state == FREE);
    spi::run(&PUT_BACK, params![id, Char(state.code()), position]);
    lease::end_lost(id)?;
    if let Some(queue) = definition::find_by_id(live.queue_id)? {
        let slot = cache::slot_of(&queue);
        announce_ready(queue.key(), slot, live.job.priority, position);
    }
    Ok(Live {
        state,
        job: Claimed {
            position,
            ..live.job
        },
        ..live
    })
}

/// Jobs of a queue that executors hold without a lock.
pub fn jobs_of(queue: &QueueDefinition) -> Vec<i64> {
    static OF_QUEUE: Plan = Plan::new(
        "SELECT l.job_id FROM pushy_internal.lease l WHERE l.inside AND l.queue_id OPERATOR(pg_catalog.=) $1",
        &[BuiltinOid::INT4OID],
    );
    if shared::get().is_none() {
        return Vec::new();
    }
    spi::connect(|spi| {
        let found = spi.run(&OF_QUEUE, params![queue.queue_id]);
        found.rows().map(|row| row.i64(1)).collect()
    })
}
