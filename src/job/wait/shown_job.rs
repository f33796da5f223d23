//! A job as a value of type pushy.job.

use crate::errors::{Error, Result};
use crate::job::running;
use crate::params;
use crate::pg::function::Answer;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{identity, transaction, BuiltinOid};
use crate::queue::definition::QueueDefinition;

// $2 and $3: the attempt that an executor makes just now, and since when.
macro_rules! job {
    () => {
        "SELECT ROW(j.id, q.queue, j.args, \
            CASE WHEN j.state OPERATOR(pg_catalog.=) 's' THEN 'scheduled' WHEN j.state OPERATOR(pg_catalog.=) 'r' THEN 'retryable' \
                 WHEN j.state OPERATOR(pg_catalog.=) 'c' THEN 'completed' WHEN j.state OPERATOR(pg_catalog.=) 'd' THEN 'discarded' \
                 WHEN j.state OPERATOR(pg_catalog.=) 'k' THEN 'cancelled' WHEN r.attempt IS NOT NULL OR j.state OPERATOR(pg_catalog.=) 'x' THEN 'running' ELSE 'available' END, \
            j.priority, COALESCE(r.attempt, j.leased_attempt, j.attempt), COALESCE(j.max_attempts, q.max_attempts), j.run_at, j.enqueued_at, \
            (SELECT r.rolname FROM pg_catalog.pg_roles r WHERE r.oid OPERATOR(pg_catalog.=) j.enqueued_by), \
            j.unique_key, j.caused_by, j.depth, COALESCE(r.started_at, j.started_at), j.finished_at, j.result, \
            (SELECT f.message FROM pushy_internal.failure f WHERE f.job_id OPERATOR(pg_catalog.=) j.id AND f.queue_id OPERATOR(pg_catalog.=) j.queue_id \
              ORDER BY f.attempt DESC LIMIT 1), \
            (SELECT c.state FROM pushy_internal.checkpoint c WHERE c.job_id OPERATOR(pg_catalog.=) j.id))::pushy.job AS job \
       FROM (SELECT l.id, l.queue_id, l.args, l.state, l.priority, l.attempt, l.max_attempts, l.run_at, l.enqueued_at, \
                    l.enqueued_by, l.unique_key, l.caused_by, l.depth, s.leased_at AS started_at, \
                    NULL::pg_catalog.timestamptz AS finished_at, NULL::pg_catalog.jsonb AS result, \
                    CASE WHEN s.job_id IS NOT NULL THEN l.attempt OPERATOR(pg_catalog.+) 1 END AS leased_attempt \
               FROM pushy_internal.live_job l \
               LEFT JOIN pushy_internal.lease s ON s.job_id OPERATOR(pg_catalog.=) l.id WHERE l.id OPERATOR(pg_catalog.=) $1 \
             UNION ALL \
             SELECT d.id, d.queue_id, d.args, d.state, d.priority, d.attempt, d.max_attempts, d.run_at, d.enqueued_at, \
                    d.enqueued_by, d.unique_key, d.caused_by, d.depth, d.started_at, d.finished_at, d.result, \
                    NULL::pg_catalog.int4 \
               FROM pushy_internal.finished_job d WHERE d.id OPERATOR(pg_catalog.=) $1) j \
       JOIN pushy_internal.queue q ON q.queue_id OPERATOR(pg_catalog.=) j.queue_id \
       LEFT JOIN (SELECT $2 AS attempt, $3 AS started_at) r ON j.state OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\""
    };
}
const OF_JOB: &[BuiltinOid] = &[
    BuiltinOid::INT8OID,
    BuiltinOid::INT4OID,
    BuiltinOid::TIMESTAMPTZOID,
];
static ROW: Plan = Plan::new(job!(), OF_JOB);
static TEXT: Plan = Plan::new(
    concat!("SELECT t.job::pg_catalog.text FROM (", job!(), ") t"),
    OF_JOB,
);

// A job as it was, completed.
static COMPLETED: Plan = Plan::new(
    "SELECT pg_catalog.jsonb_populate_record($1::pushy.job, '{\"state\": \"completed\"}'::pg_catalog.jsonb)",
    &[BuiltinOid::TEXTOID],
);

/// The job as it is now; NULL where it is gone.
pub(super) fn row(id: i64) -> Result<Answer> {
    read(&ROW, id, |row| Ok(row.answer_varlena(1))).map(|row| row.unwrap_or(Answer::Null))
}

/// The job as it is now, written as text.
pub(super) fn text(id: i64) -> Result<Option<String>> {
    read(&TEXT, id, |row| row.text(1))
}

fn read<T>(plan: &Plan, id: i64, value: impl FnOnce(Row<'_>) -> Result<T>) -> Result<Option<T>> {
    let (attempt, started_at) = running::attempt(id).unzip();
    transaction::with_latest_snapshot(|| {
        identity::as_owner(|| {
            spi::connect(|spi| {
                let found = spi.run_in_active_snapshot(plan, params![id, attempt, started_at]);
                found.first().map(value).transpose()
            })
        })
    })
}

/// A job that has ended while it was waited for, and of which nothing is kept. Only completed jobs go so soon; those that ended
/// otherwise are removed by retention, a minute later at least, and with their queue.
pub(super) fn completed(id: i64, queue: &QueueDefinition, was: &str) -> Result<Answer> {
    if queue.keep_completed_us != 0 {
        return Err(Error::no_such_job(id));
    }
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(&COMPLETED, params![was]).row(0).answer_varlena(1)
        }))
    })
}
