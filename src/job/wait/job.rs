//! job_wait: on the condition variable of the queue that is broadcast when a batch has finished.

use std::time::{Duration, Instant};

use super::shown_job;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::spi::{self, Plan};
use crate::pg::{database, identity, transaction, BuiltinOid, Oid};
use crate::queue::definition;
use crate::queue::privilege::{self, Privilege};
use crate::{shared, sql_function};

/// The longest that a function may wait: its statement pins a snapshot.
const MOST: Duration = Duration::from_secs(60);
/// How long it waits where nothing is said; as sql/jobs.sql has it.
const USUAL: Duration = Duration::from_secs(30);

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
            waited_for = shown_job::text(id)?;
        }
        wait(id, &queue, Instant::now() + timeout)?;
        // It may have been taken back meanwhile.
        queue = monitored(id, seen.queue_id, caller)?;
    }
    let row = match (shown_job::row(id)?, waited_for) {
        (Answer::Null, Some(waited_for)) => shown_job::completed(id, &queue, &waited_for),
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
            let place = &shared.queues()[slot];
            let is_another = || (!place.is(definition.key())).then_some(None);
            let look = || is_over().map(Some).or_else(is_another);
            match place.finished.wait_until(left, look) {
                Some(Some(over)) => return over,
                Some(None) => {}
                None => return Ok(()),
            }
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
        queue = super::queue_now(definition.queue_id)?;
    }
    Ok(())
}

sql_function!(pushy_job_wait_v1, |call| job_wait(call));
