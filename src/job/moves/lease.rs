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
use crate::job::tables::{lease as table, live_job};
use crate::params;
use crate::pg::array;
use crate::pg::function::{Answer, IntoAnswer};
use crate::pg::heap::Table;
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

/// Leases jobs whose rows this transaction has locked, ready as they are, and answers a token for each. As two SQL statements for all of them
/// it took three quarters of a claim, of which a third was entries in indexes.
pub fn lease(queue: &QueueDefinition, jobs: &[Claimed], terms: &Terms<'_>) -> Result<Vec<Uuid>> {
    let tokens = random::secret_uuids(jobs.len())?;
    let live = heap::open("live_job")?;
    let taken = [
        (live_job::STATE, Char(LEASED.code()).into_answer()),
        (live_job::POSITION, Answer::Null),
        (live_job::LEASED, true.into_answer()),
    ];
    live.update(jobs.iter().map(|job| job.tid), &taken);
    let leases = heap::open("lease")?;
    heap::check_columns(&leases, table::COLUMNS, &table::CHECKED)?;
    if is_any_left(&leases, jobs)? {
        insert_over(queue, jobs, &tokens, terms);
    } else {
        let row = |(job, token): (&Claimed, &Uuid)| {
            *params![
                job.id,
                terms.until,
                *token,
                terms.now,
                terms.now,
                job.position,
                queue.queue_id,
                terms.claimed_by,
                terms.session,
                Answer::Null,
                terms.worker,
                Answer::Null,
                false,
                job.enqueued_at,
            ]
        };
        leases.append(jobs.iter().zip(&tokens).map(row));
    }
    pending::leased(queue.key(), jobs.len() as u32, terms.now.0, terms.until.0);
    Ok(tokens)
}

/// Whether a lease is left of one of these jobs.
fn is_any_left(leases: &Table, jobs: &[Claimed]) -> Result<bool> {
    let mut finder = leases.finder("lease_pkey")?;
    for job in jobs {
        if finder.find(job.id, |_, _| Ok(()))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cold]
fn insert_over(queue: &QueueDefinition, jobs: &[Claimed], tokens: &[Uuid], terms: &Terms<'_>) {
    let ids: Vec<i64> = jobs.iter().map(|job| job.id).collect();
    let positions: Vec<i64> = jobs.iter().map(|job| job.position).collect();
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
    pending::leases_ended(queue.key(), left as u32);
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
    match leased_job::lease_of(job)? {
        Some(lease) => end_all(std::slice::from_ref(&lease)),
        None => Ok(()),
    }
}

/// The same of jobs whose leases were found while their rows were locked.
fn end_all(leases: &[Lease]) -> Result<()> {
    heap::open("lease")?.delete(leases.iter().map(|lease| lease.tid));
    heap::advance_command();
    for of_queue in leases.chunk_by(|one, other| one.queue_id == other.queue_id) {
        let key = QueueKey {
            database: database::current(),
            queue_id: of_queue[0].queue_id,
        };
        let outside = of_queue.iter().filter(|lease| !lease.inside).count();
        pending::leases_ended(key, outside as u32);
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
    "UPDATE pushy_internal.live_job SET state = $2, position = $3, run_at = $4, leased = NULL WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Gives a leased job back, uncharged, to where it stood.
pub fn release(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    lease: &Lease,
) -> Result<()> {
    end_all(std::slice::from_ref(lease))?;
    put_back(queue, slot, job, lease.position)
}

/// The same of a job that an executor holds, to `position`.
pub(super) fn release_held(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    position: i64,
) -> Result<()> {
    end(job.id, LEASED)?;
    put_back(queue, slot, job, position)
}

fn put_back(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    position: i64,
) -> Result<()> {
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
    lease: &Lease,
    due: Timestamp,
) -> Result<()> {
    end_all(std::slice::from_ref(lease))?;
    let_another_in(queue, slot);
    snooze::snooze(queue, slot, LEASED, job, due)
}

/// Gives back a leased job whose session has ended with the server: uncharged, as one of `MAX_GIVE_BACKS` times, to where it stood.
pub fn give_back(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    lease: &Lease,
) -> Result<()> {
    give_back::count(job.id)?;
    release(queue, slot, job, lease)
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

/// Workers say that jobs of a queue are done, whose rows this transaction has locked in this file of their table, with their leases: the effects
/// are in this transaction, or elsewhere. Written together, as executors do it.
pub fn complete(
    queue: &QueueDefinition,
    slot: Option<usize>,
    jobs: &[Claimed],
    leases: &[Lease],
    found_in: u32,
    done: &[Completed],
) -> Result<()> {
    end_all(leases)?;
    let_another_in(queue, slot);
    if let Some(slot) = slot {
        for one in done {
            let wait = one.started_at.since_us(jobs[one.of].run_at);
            let run = one.finished_at.since_us(one.started_at);
            pending::count_times(slot, queue.key(), wait, run);
        }
    }
    complete::complete(queue, slot, jobs, found_in, done)
}

/// The worker says that the attempt failed, or its lease is over.
pub fn fail(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    lease: &Lease,
    failed: &Attempt<'_>,
) -> Result<JobState> {
    end_all(std::slice::from_ref(lease))?;
    let_another_in(queue, slot);
    retry_or_discard::fail(queue, slot, LEASED, job, failed)
}
