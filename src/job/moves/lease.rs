//! available → running, and back, for claims that outlive a transaction: a lease is stored beside the job's row. Who changes a
//! lease has locked that row. `core/tests/lease_model/` walks every interleaving of what happens to one.

use crate::pg::{BuiltinOid, Oid};
use pushy_core::job_state::{JobEvent, JobState};

use super::complete::{self, Completed};
use super::retry_or_discard::{self, Attempt};
use super::rows::announce_ready;
use super::{give_back, snooze, step};
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job::{self, Lease};
use crate::job::live;
use crate::params;
use crate::pg::array;
use crate::pg::random;
use crate::pg::spi::{self, Plan};
use crate::pg::value::{Char, Timestamp, Uuid};
use crate::pg::{database, heap};
use crate::queue::cache;
use crate::queue::definition::QueueDefinition;
use crate::shared::pending;
use crate::shared::queue_slot::QueueKey;
use crate::shared::statistics::QueueCounts;

const LEASED: JobState = JobState::Available.after(JobEvent::Claim);

/// What is said of the leases of one claim.
pub struct Terms<'a> {
    pub now: Timestamp,
    pub until: Timestamp,
    /// The session whose end ends them.
    pub session: Option<i64>,
    pub claimed_by: Oid,
    pub worker: Option<&'a str>,
}

// By their places, as all that moves a job here, because an index would be remembered of a SERIALIZABLE transaction: a page with the
// jobs of others.
static TAKE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET state = $2, position = NULL WHERE ctid OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::TIDARRAYOID, BuiltinOid::CHAROID],
);

// A row that is there is of a claim that is over, whoever has left it: nothing holds a job that is ready.
static INSERT: Plan = Plan::new(
    "INSERT INTO pushy_internal.lease (job_id, token, position, enqueued_at, queue_id, until, leased_at, said_at, claimed_by, worker, session) \
     SELECT c.job_id, c.token, c.position, c.enqueued_at, $5, $6, $7, $7, $8, $9, $10 \
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) AS c (job_id, token, position, enqueued_at) \
     ON CONFLICT (job_id) DO UPDATE SET token = EXCLUDED.token, position = EXCLUDED.position, queue_id = EXCLUDED.queue_id, \
            until = EXCLUDED.until, leased_at = EXCLUDED.leased_at, said_at = EXCLUDED.said_at, claimed_by = EXCLUDED.claimed_by, \
            enqueued_at = EXCLUDED.enqueued_at, worker = EXCLUDED.worker, \
            session = EXCLUDED.session, fraction = NULL, message = NULL, inside = false \
     RETURNING xmax OPERATOR(pg_catalog.<>) '0'::pg_catalog.xid",
    &[
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::UUIDARRAYOID,
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::TIMESTAMPTZARRAYOID,
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::OIDOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::INT8OID,
    ],
);

/// Leases jobs whose rows this transaction has locked, ready as they are, and answers a token for each.
pub fn lease(queue: &QueueDefinition, jobs: &[Claimed], terms: &Terms<'_>) -> Result<Vec<Uuid>> {
    let tokens = jobs
        .iter()
        .map(|_| random::secret_uuid())
        .collect::<Result<Vec<Uuid>>>()?;
    let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
    let positions: Vec<i64> = jobs.iter().map(|job| job.position).collect();
    let places = array::of_tids(jobs.iter().map(|job| job.tid));
    spi::run(&TAKE, params![places, Char(LEASED.code())]);
    let of_insert = params![
        array::of_int8s(&ids),
        array::of_uuids(tokens.iter().copied()),
        array::of_int8s(&positions),
        array::of_timestamps(jobs.iter().map(|job| job.enqueued_at)),
        queue.queue_id,
        terms.until,
        terms.now,
        terms.claimed_by,
        terms.worker,
        terms.session,
    ];
    let left = spi::connect(|spi| {
        let inserted = spi.run(&INSERT, of_insert);
        inserted.rows().filter(|row| row.bool(1)).count()
    });
    for _ in 0..left {
        pending::lease_ended(queue.key());
    }
    pending::leased(queue.key(), jobs.len() as u32, terms.now.0, terms.until.0);
    Ok(tokens)
}

static RENEW: Plan = Plan::new(
    "UPDATE pushy_internal.lease SET token = $2, until = $3, leased_at = $4, said_at = $4, claimed_by = $5, session = $6, \
            fraction = NULL, message = NULL \
      WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::UUIDOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::OIDOID,
        BuiltinOid::INT8OID,
    ],
);

/// Gives a leased job back and leases it again to the worker that holds it, whose call was repeated because its answer was lost:
/// with another token, because whoever has got that answer all the same holds the job no longer.
pub fn lease_again(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    lease: &Lease,
    terms: &Terms<'_>,
) -> Result<Uuid> {
    let free = step(job.id, LEASED, JobEvent::Release)?;
    step(job.id, free, JobEvent::Claim)?;
    let token = random::secret_uuid()?;
    give_back::count(job.id)?;
    spi::run(
        &RENEW,
        params![
            lease.tid,
            token,
            terms.until,
            terms.now,
            terms.claimed_by,
            terms.session
        ],
    );
    count_given_back(queue, slot);
    pending::lease_said(queue.key(), terms.now.0, terms.until.0);
    Ok(token)
}

/// The lease of a job that moves on. `from`: its state as stored.
fn end(job: i64, from: JobState) -> Result<()> {
    if from != LEASED {
        return Ok(());
    }
    if let Some(lease) = leased_job::lease_of(job)? {
        heap::open("lease")?.delete(std::iter::once(lease.tid));
        heap::advance_command();
        if !lease.inside {
            pending::lease_ended(QueueKey {
                database: database::current(),
                queue_id: lease.queue_id,
            });
        }
    }
    Ok(())
}

/// The same of an executor that has ended.
pub(super) fn end_lost(job: i64) -> Result<()> {
    end(job, LEASED)
}

/// The same of a job that is claimed no more: there is nothing to charge.
#[cold]
pub fn end_of_nobody(queue: &QueueDefinition, job: i64) -> Result<()> {
    end_with(queue, job, LEASED)
}

/// The same, where another job may be let in for it.
pub(super) fn end_with(queue: &QueueDefinition, job: i64, from: JobState) -> Result<()> {
    end(job, from)?;
    if from == LEASED {
        let_another_in(queue, cache::slot_of(queue));
    }
    Ok(())
}

static RELEASE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET state = $2, position = $3, run_at = $4 WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Gives a leased job back, uncharged, to `position`, where it stood.
pub fn release(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    position: i64,
) -> Result<()> {
    end(job.id, LEASED)?;
    let free = step(job.id, LEASED, JobEvent::Release)?;
    spi::run(
        &RELEASE,
        params![
            live::place(job.id)?,
            Char(free.code()),
            position,
            job.run_at
        ],
    );
    announce_ready(queue.key(), slot, job.priority, position);
    count_given_back(queue, slot);
    let_another_in(queue, slot);
    Ok(())
}

/// The worker puts its job off until `due`: as a handler does.
pub fn snooze(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    due: Timestamp,
) -> Result<()> {
    end(job.id, LEASED)?;
    let_another_in(queue, slot);
    snooze::snooze(queue, slot, LEASED, job, due)
}

/// Gives back a leased job whose session has ended with the server: uncharged, as one of `MAX_GIVE_BACKS` times, to where it stood.
pub fn give_back(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    position: i64,
) -> Result<()> {
    give_back::count(job.id)?;
    release(queue, slot, job, position)
}

fn count_given_back(queue: &QueueDefinition, slot: Option<usize>) {
    if let Some(slot) = slot {
        let tally = QueueCounts {
            given_back: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &tally);
    }
}

/// Where leases are limited, one that ends lets another job in.
fn let_another_in(queue: &QueueDefinition, slot: Option<usize>) {
    if let (Some(slot), Some(_)) = (slot, queue.concurrency) {
        pending::for_later(slot, queue.key(), 0);
    }
}

/// The worker says that the job is done: its effects are in this transaction, or elsewhere.
pub fn complete(
    queue: &QueueDefinition,
    slot: Option<usize>,
    jobs: &[Claimed],
    done: &[Completed],
) -> Result<()> {
    for one in done {
        end(jobs[one.of].id, LEASED)?;
    }
    let_another_in(queue, slot);
    if let Some(slot) = slot {
        for one in done {
            let wait = one.started_at.since_us(jobs[one.of].run_at);
            let run = one.finished_at.since_us(one.started_at);
            pending::count_times(slot, queue.key(), wait, run);
        }
    }
    complete::complete(queue, slot, jobs, done)
}

/// The worker says that the attempt failed, or its lease is over.
pub fn fail(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    failed: &Attempt<'_>,
) -> Result<JobState> {
    end(job.id, LEASED)?;
    let_another_in(queue, slot);
    retry_or_discard::fail(queue, slot, LEASED, job, failed)
}
