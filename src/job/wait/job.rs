//! Waiting for jobs: on condition variables of the queue, broadcast when a batch has finished (for one
//! job) and when nothing is left (for all).

use std::time::{Duration, Instant};

use crate::pg::BuiltinOid;

use crate::errors::{Error, Result, SqlState};
use crate::job::{running, unfinished};
use crate::pg::ereport;
use crate::pg::function::{Answer, Call};
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{database, identity, transaction, Oid};
use crate::queue::privilege::{self, Privilege};
use crate::queue::{cache, definition, explain};
use crate::shared;
use crate::{params, row, sql_function};

/// The longest that a function may wait: its statement pins a snapshot.
const MOST: Duration = Duration::from_secs(60);
/// How long job_wait and jobs_wait wait where nothing is said; as sql/jobs.sql has it.
const USUAL: Duration = Duration::from_secs(30);
const USUAL_OF_ALL: Duration = Duration::from_secs(3_600);

// Rows written by this transaction itself are seen with their xmin, to refuse waiting for them. Two plans, because
// that of the second opens each table of the history, and a session that waits looks often.
static UNFINISHED_STATE: Plan = Plan::new(
    "SELECT j.queue_id, j.xmin::pg_catalog.text::pg_catalog.int8, j.attempt FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID],
);
static FINISHED_STATE: Plan = Plan::new(
    "SELECT f.queue_id, f.xmin::pg_catalog.text::pg_catalog.int8, f.attempt FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID],
);

// The job as a value of type pushy.job; $2 and $3: the attempt that an executor makes just now, and since when.
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

struct JobRow {
    queue_id: i32,
    finished: bool,
    own: bool,
    /// No attempt was charged: the row says nothing that its enqueuer did not.
    untried: bool,
}

/// The job as of now, whatever the transaction's snapshot.
fn read_row(id: i64) -> Result<Option<JobRow>> {
    transaction::with_latest_snapshot(|| {
        identity::as_owner(|| {
            Ok(spi::connect(|spi| {
                let states = [(&UNFINISHED_STATE, false), (&FINISHED_STATE, true)];
                states.into_iter().find_map(|(plan, finished)| {
                    spi.run_in_active_snapshot(plan, params![id])
                        .first()
                        .map(|row| JobRow {
                            queue_id: row.i32(1),
                            finished,
                            own: transaction::is_own(row.i64(2) as u32),
                            untried: !finished && row.i32(3) == 0,
                        })
                })
            }))
        })
    })
}

fn job_wait(call: Call) -> Result<Answer> {
    let id = call.i64("job_id", 0)?;
    let timeout = call.timeout("timeout", 1, USUAL)?;
    if timeout > MOST {
        return Err(Error::out_of_range(
            "timeout",
            call.shown_interval(1),
            "0 to 1 minute, because a function that waits holds its snapshot; for longer waits CALL pushy.jobs_wait(queue, timeout)",
        ));
    }
    let seen = read_row(id)?.ok_or_else(|| Error::no_such_job(id))?;
    let caller = identity::current_user();
    let mut queue = monitored(id, seen.queue_id, caller)?;
    let mut waited_for = None;
    if !seen.finished {
        if seen.own {
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "job {id} was enqueued by this transaction and cannot run before it commits"
                ),
            )
            .hint("Commit first, then wait."));
        }
        if queue.keep_completed_us == 0 {
            waited_for = read(&TEXT, id, |row| row.text(1))?;
        }
        wait(id, &queue, Instant::now() + timeout)?;
        // It may have been taken back meanwhile.
        queue = monitored(id, seen.queue_id, caller)?;
    }
    let row = match (row(id)?, waited_for) {
        (Answer::Null, Some(waited_for)) => completed(id, &queue, &waited_for),
        (Answer::Null, None) => Err(Error::no_such_job(id)),
        (row, _) => Ok(row),
    };
    // An executor's commit is usually not on disk yet: flush before its outcome is answered. Not for an untried job: its
    // caller polls, and would wait for the disk each time.
    if !read_row(id)?.is_some_and(|seen| seen.untried) {
        transaction::flush_commits();
    }
    row
}

/// The queue of a job, as of now, for a role that may see its jobs now.
fn monitored(id: i64, queue_id: i32, caller: Oid) -> Result<definition::QueueDefinition> {
    identity::accept_changes();
    let queue = identity::as_owner(|| definition::find_by_id(queue_id))?
        .ok_or_else(|| Error::no_such_job(id))?;
    let grants = identity::as_owner(|| privilege::grants(queue.queue_id))?;
    privilege::require_for_job(id, &queue, &grants, caller, Privilege::Monitor)?;
    Ok(queue)
}

/// Until the job has finished or is gone, or the deadline. Nobody announces the jobs of a queue that has no place in shared
/// memory: whether it has got one is looked at now and then.
fn wait(id: i64, queue: &definition::QueueDefinition, deadline: Instant) -> Result<()> {
    const AGAIN: Duration = Duration::from_millis(100);
    let Some(shared) = shared::get() else {
        return Ok(());
    };
    let is_over = || match read_row(id) {
        Ok(Some(seen)) if !seen.finished => None,
        other => Some(other.map(|_| ())),
    };
    let mut queue = Some(queue.clone());
    // Bounded: by the deadline; who sleeps looks at interrupts.
    while let Some(definition) = &queue {
        let left = deadline.saturating_duration_since(Instant::now());
        // Not made here: the queue may be dropped by now.
        if let Some(slot) = shared.find_queue(definition.key()) {
            let finished = &shared.queues()[slot].finished;
            return finished.wait_until(left, is_over).unwrap_or(Ok(()));
        }
        // Made here where no launcher has been in the database yet. Where none is free nobody wakes us, and any will do.
        let database_slot = shared.ensure_database(database::current());
        let worker_left = &database_slot.unwrap_or(&shared.databases[0]).worker_left;
        if let Some(over) = worker_left.wait_until(left.min(AGAIN), is_over) {
            return over;
        }
        if left.is_zero() {
            return Ok(());
        }
        queue = find_now(definition.queue_id)?;
    }
    Ok(())
}

/// The queue's definition as it is now; None when it was dropped.
fn find_now(queue_id: i32) -> Result<Option<definition::QueueDefinition>> {
    transaction::with_latest_snapshot(|| identity::as_owner(|| definition::find_by_id(queue_id)))
}

/// The job as it is now; NULL where it is gone.
fn row(id: i64) -> Result<Answer> {
    read(&ROW, id, |row| Ok(row.answer_varlena(1))).map(|row| row.unwrap_or(Answer::Null))
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
fn completed(id: i64, queue: &definition::QueueDefinition, was: &str) -> Result<Answer> {
    if queue.keep_completed_us != 0 {
        return Err(Error::no_such_job(id));
    }
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(&COMPLETED, params![was]).row(0).answer_varlena(1)
        }))
    })
}

sql_function!(pushy_job_wait_v1, |call| job_wait(call));

/// Raises a NOTICE for each reason that keeps the queue's jobs from running now. No ERROR, because the caller may wait for
/// somebody to remove it.
fn notice_obstacles(queue_id: i32, waits: bool) -> Result<()> {
    // Its name may be another queue's by now.
    let Some(queue) = identity::as_owner(|| definition::find_by_id(queue_id))? else {
        return Ok(());
    };
    for finding in explain::standing_findings(&queue) {
        let message = format!(
            "jobs of queue \"{}\" do not run now: {}",
            queue.name, finding.reason
        );
        let mut notice = Error::new(SqlState::SUCCESSFUL_COMPLETION, message);
        if waits {
            notice = notice.detail("The call waits for them all the same, until its timeout, because somebody may mend that.");
        }
        ereport::notice(&match finding.fix {
            Some(fix) => notice.hint(fix),
            None => notice,
        });
    }
    Ok(())
}

/// Whether nothing is left.
fn jobs_wait(call: Call) -> Result<Answer> {
    let name = call.text("queue", 0)?;
    let timeout = call.timeout("timeout", 1, USUAL_OF_ALL)?;
    transaction::require_nonatomic(call.is_nonatomic_call(), "pushy.jobs_wait")?;
    let cached = cache::get(&name)?;
    let queue = &cached.definition;
    privilege::require(
        queue,
        &cached.grants,
        identity::current_user(),
        Privilege::Monitor,
    )?;
    let deadline = Instant::now() + timeout;
    let mut noticed = false;
    let mut slot = cached.slot;
    // Bounded: by the deadline; who sleeps looks at interrupts.
    loop {
        let seen = slot.map(|slot| (slot, shared::expect().queues()[slot].drains()));
        // Each look is a transaction of its own; between looks no snapshot is held.
        transaction::commit_in_procedure()?;
        let is_any = unfinished::is_any(queue, slot)?;
        let is_quiet = |slot: usize| shared::expect().queues()[slot].nobody_announces();
        if !is_any && slot.is_none_or(is_quiet) {
            transaction::flush_commits();
            return Ok(call.answer_row(row![true]));
        }
        if is_any && !std::mem::replace(&mut noticed, true) {
            notice_obstacles(queue.queue_id, slot.is_some())?;
        }
        transaction::commit_in_procedure()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(call.answer_row(row![false]));
        }
        match seen {
            Some((slot, seen)) => shared::expect().queues()[slot].wait_drain(seen, left),
            // One that has got a place meanwhile is looked at again. Of one that is gone nothing is left.
            None => match find_now(queue.queue_id)? {
                Some(now) => {
                    slot = Some(cache::slot_or_reason(&now).map_err(|why| why.error(&now))?)
                }
                None => return Ok(call.answer_row(row![true])),
            },
        }
    }
}

sql_function!(pushy_jobs_wait_v1, |call| jobs_wait(call));
