//! Jobs whose end no attempt decides: discarded at birth, because a chain of causes is too long; orphans, whose queue is gone;
//! deleted with their queue. (What failed for the last time is in retry_or_discard.rs.)

use crate::pg::BuiltinOid;
use pushy_core::job_state::{Birth, JobEvent, JobState};

use super::enqueue::Request;
use super::rows::end_as;
use super::{failure_rows, hold};
use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::history;
use crate::pg::function::Answer;
use crate::pg::spi::{self, Plan, Tid};
use crate::pg::value::{Char, Timestamp};
use crate::pg::{array, clock, size, transaction, Datum};
use crate::queue::control_channel;
use crate::queue::definition::QueueDefinition;
use crate::queue::options;
use crate::shared::statistics::QueueCounts;
use crate::shared::{self, pending};
use crate::{kept_columns, params};

/// A chain of causes longer than pushy.max_depth: nothing → discarded.
#[cold]
pub(super) fn at_birth(
    request: &Request,
    id: i64,
    args: Datum,
    unique_key: Option<&str>,
) -> Result<()> {
    let definition = &request.queue.definition;
    let now = request.enqueued_at;
    let expires_at = now.plus_us(definition.keep_discarded_us);
    let row = params![
        id,
        expires_at,
        request.run_at,
        now,
        Answer::Null,
        now,
        request.timeout_us,
        request.caused_by,
        definition.queue_id,
        request.caller,
        0i32,
        request.max_attempts,
        request.priority,
        request.depth as i16,
        Char(Birth::TooDeep.state().code()),
        unique_key,
        args,
        Answer::Null,
    ];
    history::open_parent(expires_at)?.append(std::iter::once(row.to_vec()));
    let error = too_deep(id, request.depth, request.caused_by);
    failure_rows::record((id, now), 0, definition.queue_id, None, now, &error)?;
    if let Some(slot) = request.queue.slot {
        let discarded = QueueCounts {
            discarded: 1,
            ..QueueCounts::default()
        };
        pending::for_later(slot, definition.key(), 1);
        pending::count(slot, definition.key(), &discarded);
    }
    control_channel::discarded(Some(definition), id)
}

fn too_deep(id: i64, depth: i32, caused_by: Option<i64>) -> Error {
    Error::new(
        SqlState::STATEMENT_TOO_COMPLEX,
        format!("job {id} was discarded: it is {depth} causes deep"),
    )
    .detail(format!(
        "Each of the {depth} jobs before it was enqueued by the one before; the last is job {}.",
        caused_by.unwrap_or_default()
    ))
    .hint("Look for handlers that enqueue each other in a circle; pushy.max_depth is the bound.")
}

static ORPHANS: Plan = Plan::new(
    concat!(
        "WITH lost AS ( \
           SELECT j.id FROM pushy_internal.live_job j \
            WHERE j.ctid OPERATOR(pg_catalog.>=) $5 AND j.ctid OPERATOR(pg_catalog.<) $6 \
              AND NOT EXISTS (SELECT 1 FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) j.queue_id) \
              AND (j.queue_id OPERATOR(pg_catalog.>) 0 \
                   OR EXISTS (SELECT FROM pushy_internal.loaded_queue h WHERE h.queue_id OPERATOR(pg_catalog.=) j.queue_id AND h.number_there IS NULL)) \
            LIMIT $2 FOR UPDATE SKIP LOCKED), \
         gone AS ( \
           DELETE FROM pushy_internal.live_job j USING lost WHERE j.id OPERATOR(pg_catalog.=) lost.id RETURNING j.*) \
         INSERT INTO pushy_internal.finished_job (expires_at, finished_at, state, run_at, attempt, max_attempts, ",
        kept_columns!(),
        ") SELECT $3, $1, $4, run_at, attempt, max_attempts, ",
        kept_columns!(),
        " FROM gone ON CONFLICT DO NOTHING RETURNING id, queue_id, enqueued_at"
    ),
    &[
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::CHAROID,
        BuiltinOid::TIDOID,
        BuiltinOid::TIDOID,
    ],
);

/// Pages of a turn: some milliseconds, because the due jobs of all wait meanwhile.
const PAGES: u32 = 512;

/// In whatever state an orphan waits, and what nobody has locked waits.
const ORPHANED: JobState = JobState::Available.after(JobEvent::Orphan);
const _: () = assert!(
    matches!(JobState::Scheduled.after(JobEvent::Orphan), ORPHANED)
        && matches!(JobState::Retryable.after(JobEvent::Orphan), ORPHANED)
);

/// Discards up to `most` jobs whose queue was dropped while they were being enqueued, from page `from` of the table on, and answers their
/// numbers and the page to go on with, None behind the last; not jobs that were loaded, whose queue may come yet. The queue that was dropped has taken with it how long it kept them, its name and its counters;
/// so they are kept as long as a queue keeps them by default, and are not counted. As the extension's owner.
pub fn orphans(from: u32, most: usize) -> Result<(Vec<i64>, Option<u32>)> {
    let now = clock::now();
    let expires_at = now.plus_us(options::DEFAULT_KEEP_DISCARDED_US);
    let lost: Vec<(i64, i32, Timestamp)> = spi::connect(|spi| {
        let gone = spi.run(
            &ORPHANS,
            params![
                now,
                most as i64,
                expires_at,
                Char(ORPHANED.code()),
                Tid::before_page(from),
                Tid::before_page(from.saturating_add(PAGES))
            ],
        );
        gone.rows()
            .map(|row| (row.i64(1), row.i32(2), Timestamp(row.i64(3))))
            .collect()
    });
    let error = Error::new(SqlState::UNDEFINED_OBJECT, "the job's queue was dropped");
    for (id, queue_id, enqueued_at) in &lost {
        // No attempt was made for this.
        failure_rows::record((*id, *enqueued_at), 0, *queue_id, None, now, &error)?;
        control_channel::discarded(None, *id)?;
    }
    if !lost.is_empty() {
        let ids: Vec<i64> = lost.iter().map(|(id, ..)| *id).collect();
        spi::run(&LEASES_OF, params![array::of_int8s(&ids)]);
        pending::due(history::removal_due(expires_at));
    }
    let behind = from.saturating_add(PAGES);
    let pages = size::bytes("live_job") / size::PAGE;
    let next = if lost.len() == most {
        Some(from)
    } else {
        (i64::from(behind) < pages).then_some(behind)
    };
    Ok((lost.into_iter().map(|(id, ..)| id).collect(), next))
}

static LEASES_OF: Plan = Plan::new(
    "DELETE FROM pushy_internal.lease l WHERE l.job_id OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::INT8ARRAYOID],
);

/// Those that are of no leased job of the queue.
pub(super) static LEASES_OF_QUEUE: Plan = Plan::new(
    "DELETE FROM pushy_internal.lease l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 \
        AND NOT EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) l.job_id \
                           AND j.queue_id OPERATOR(pg_catalog.=) $1 AND j.state OPERATOR(pg_catalog.=) 'x'::pg_catalog.\"char\")",
    &[BuiltinOid::INT4OID],
);

static HAS_FINISHED: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) $1)",
    &[BuiltinOid::INT8OID],
);

/// Discards a job beside which a finished one of its number is kept, as somebody may have written it into the table: no attempt of it
/// could be completed. The finished one stays, and this one is only said. False if there is none. As the extension's owner.
#[cold]
pub fn finished_before(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    started_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<bool> {
    let has_finished = spi::connect(|spi| spi.run(&HAS_FINISHED, params![job.id]).row(0).bool(1));
    if !has_finished {
        return Ok(false);
    }
    let attempt = job.attempt + 1;
    let state = JobState::Running.after(JobEvent::FailLast);
    let error = Error::new(
        SqlState::UNIQUE_VIOLATION,
        format!("job {} was discarded: a finished job of its number is kept", job.id),
    )
    .hint("Only rows that somebody has written into Pushy's tables can bring that about. Leave them to Pushy's functions, and to dumps that are loaded whole.");
    let who = (job.id, job.enqueued_at);
    failure_rows::record(who, attempt, queue.queue_id, started_at, now, &error)?;
    end_as(queue, job.id, state, attempt, started_at, now)?;
    if let Some(slot) = slot {
        let discarded = QueueCounts {
            failed: 1,
            discarded: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &discarded);
    }
    transaction::log_at_commit(error);
    control_channel::discarded(Some(queue), job.id)?;
    Ok(true)
}

/// A job that an executor holds is not waited for: it is cancelled where it runs, and what is left of
/// it has no queue any more, which the scheduler's sweep ends.
static DELETE_OF_QUEUE: Plan = Plan::new(
    "DELETE FROM pushy_internal.live_job j \
      USING (SELECT l.id FROM pushy_internal.live_job l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 \
                FOR UPDATE SKIP LOCKED) free \
      WHERE j.id OPERATOR(pg_catalog.=) free.id",
    &[BuiltinOid::INT4OID],
);

static LEFT: Plan = Plan::new(
    "SELECT j.id FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

/// Deletes the unfinished jobs of a queue that is dropped by force: they have no last state, and are not counted. Those that
/// somebody holds are cancelled where they run. As the extension's owner.
pub fn delete_with_queue(queue: &QueueDefinition) {
    // Executors skip what we lock; should this transaction roll back, they must look again.
    if let Some(slot) = shared::get().and_then(|shared| shared.find_queue(queue.key())) {
        pending::all_locked(slot, queue.key());
    }
    let mut held = hold::jobs_of(queue);
    spi::run(&DELETE_OF_QUEUE, params![queue.queue_id]);
    spi::run(&LEASES_OF_QUEUE, params![queue.queue_id]);
    spi::connect(|spi| {
        let left = spi.run(&LEFT, params![queue.queue_id]);
        let left = left.rows().map(|row| row.i64(1));
        held.extend(left.filter(|job| !held.contains(job)).collect::<Vec<_>>());
    });
    // As far as there is room for requests: the others end as orphans.
    for job in held {
        pending::ask_cancel(queue.owner, queue.key().database, job);
    }
}
