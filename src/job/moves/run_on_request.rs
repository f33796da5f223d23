//! scheduled, retryable, completed, discarded, cancelled → available: somebody wants the job to run now.

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};

use super::rows::{announce_ready, insert_of_key, Stored};
use super::{failure_rows, out_of_history, step};
use crate::errors::Result;
use crate::job::live::{Finished, Live};
use crate::job::tables::finished_job;
use crate::job::{position, promise};
use crate::params;
use crate::pg::function::Answer;
use crate::pg::heap;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database};
use crate::queue::cache;
use crate::queue::definition::QueueDefinition;
use crate::shared::statistics::QueueCounts;
use crate::shared::{self, pending};

// By its place, as a move among the finished ones.
static MAKE_READY: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET state = $2, position = $3, run_at = $4, leased = NULL, give_backs = 0, suspicions = 0 \
      WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Makes a job that waits ready. Its row is held by this transaction; as the extension's owner.
pub fn run_now(queue: &QueueDefinition, waiting: &Live) -> Result<()> {
    let id = waiting.job.id;
    let stored = ready(id, waiting.state)?;
    spi::run(
        &MAKE_READY,
        params![waiting.job.tid, stored.state, stored.position, clock::now()],
    );
    announce(queue, waiting.job.priority, &stored);
    Ok(())
}

/// Makes a finished job run again, `beside` the newest one of its key; counted by the commit. False when it is gone from the
/// history, or another of its key came beside that job. As the extension's owner.
pub fn run_again(
    queue: &QueueDefinition,
    id: i64,
    finished: &Finished,
    beside: Option<i64>,
) -> Result<bool> {
    let stored = ready(id, finished.state)?;
    let (now, most) = (clock::now(), queue.max_attempts);
    let Some(finished_row) =
        out_of_history::lock(id, |row| live_row(row, &stored, now, most, beside))?
    else {
        return Ok(false);
    };
    let is_inserted = match (&finished.unique_key, beside) {
        (Some(key), Some(beside)) => insert_of_key(&finished_row.job, queue, key, beside)?,
        _ => heap::open("live_job")?.insert_unless_there(&finished_row.job, None)?,
    };
    if !is_inserted {
        return Ok(false);
    }
    finished_row.remove();
    failure_rows::forget_refusal(id, queue.queue_id)?;
    // It is cancelled, whatever becomes of this transaction; before the row can be seen, which others would cancel again.
    promise::forget(id)?;
    if let Some(shared) = shared::get() {
        shared.cancels.forget_job(database::current(), id);
    }
    announce(queue, finished.priority, &stored);
    if let Some(slot) = cache::slot_of(queue) {
        let again = QueueCounts {
            run_again: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &again);
    }
    Ok(true)
}

/// The row of a finished job as it is among those that are not. The attempts made stay counted; one more is allowed where they
/// were used up.
fn live_row(
    row: Row<'_>,
    stored: &Stored,
    now: Timestamp,
    queue_max_attempts: i32,
    beside: Option<i64>,
) -> [Answer; 20] {
    use finished_job::{
        ARGS, ATTEMPT, CAUSED_BY, DEPTH, ENQUEUED_AT, ENQUEUED_BY, ID, MAX_ATTEMPTS, PRIORITY,
        QUEUE_ID, TIMEOUT_US, UNIQUE_KEY,
    };
    let attempt = row.i32(ATTEMPT);
    let own_max_attempts = row.opt_i32(MAX_ATTEMPTS);
    let may_run = own_max_attempts.unwrap_or(queue_max_attempts) > attempt;
    *params![
        row.i64(ID),
        stored.position,
        now,
        row.timestamp(ENQUEUED_AT),
        row.opt_i64(TIMEOUT_US),
        row.opt_i64(CAUSED_BY),
        row.i32(QUEUE_ID),
        row.oid(ENQUEUED_BY),
        attempt,
        if may_run {
            own_max_attempts
        } else {
            Some(attempt + 1)
        },
        row.i16(PRIORITY),
        row.i16(DEPTH),
        0i16,
        stored.state,
        0i16,
        row.answer_copied(UNIQUE_KEY),
        beside,
        row.answer_copied(ARGS),
        0i32,
        None::<bool>,
    ]
}

fn ready(id: i64, from: JobState) -> Result<Stored> {
    let state = step(id, from, JobEvent::RetryNow)?;
    Ok(Stored::of(state, position::next()?))
}

fn announce(queue: &QueueDefinition, priority: i16, stored: &Stored) {
    let position = stored.position.expect("a ready job has one");
    announce_ready(queue.key(), cache::slot_of(queue), priority, position);
}
