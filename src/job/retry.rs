//! Running a job now: one that waits for its time, or one that is finished, once more.

use crate::pg::BuiltinOid;
use pushy_core::state::{JobEvent, JobState};

use super::cancel::queue_for_work;
use super::live::{self, Whereabouts};
use super::position;
use super::promise;
use super::unique::{self, Found};
use crate::errors::{Error, Result, SqlState};
use crate::pg::spi::{self, Plan};
use crate::pg::value::Char;
use crate::pg::{clock, database, identity, transaction};
use crate::queue::definition::Definition;
use crate::queue::{cache, control};
use crate::shared::{self, pending};
use crate::{kept_columns, params, sql_function};

static MAKE_READY: Plan = Plan::new(
    "UPDATE pushy.live_job SET state = $2, position = $3, run_at = $4 WHERE id OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

// The attempts made stay counted; one more is allowed where they were used up. A refusal for its depth, which is no
// attempt, is forgotten: jobs that never failed have no failures (history.rs).
static RUN_AGAIN: Plan = Plan::new(
    concat!(
        "WITH again AS (DELETE FROM pushy.finished_job f WHERE f.id OPERATOR(pg_catalog.=) $1 RETURNING f.*), \
         refusal AS (DELETE FROM pushy.failure x WHERE x.job_id OPERATOR(pg_catalog.=) $1 AND x.attempt OPERATOR(pg_catalog.=) 0) \
         INSERT INTO pushy.live_job (beside, position, run_at, state, attempt, max_attempts, ",
        kept_columns!(),
        ") SELECT $6, $2, $3, $4, attempt, \
                  CASE WHEN COALESCE(max_attempts, $5) OPERATOR(pg_catalog.>) attempt THEN max_attempts \
                       ELSE attempt OPERATOR(pg_catalog.+) 1 END, ",
        kept_columns!(),
        " FROM again ON CONFLICT (queue_id, unique_key, beside) WHERE unique_key IS NOT NULL DO NOTHING"
    ),
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT8OID,
    ],
);

/// True when the job was made ready; false when it is ready or running as it is.
fn retry(id: i64) -> Result<bool> {
    let retried = match identity::as_owner(|| live::find_anywhere(id))? {
        None => return Err(Error::no_such_job(id)),
        Some(Whereabouts::Live(live)) => {
            let queue = queue_for_work(id, live.queue_id)?;
            identity::as_owner(|| run_now(&queue, id, live.state))?.then_some(queue)
        }
        Some(Whereabouts::Finished(finished)) => {
            let queue = queue_for_work(id, finished.queue_id)?;
            if !identity::as_owner(|| run_again(&queue, id, &finished))? {
                return retry(id);
            }
            Some(queue)
        }
    };
    if let Some(queue) = &retried {
        control::tell_of_job(control::Of::Retry, &queue.name, id)?;
    }
    Ok(retried.is_some())
}

fn announce(queue: &Definition, priority: i16, position: i64) {
    match cache::slot_of(queue) {
        Some(slot) => pending::ready(slot, queue.key(), priority as usize, position, 0),
        None => pending::unplaced(queue.key()),
    }
}

fn run_now(queue: &Definition, id: i64, state: JobState) -> Result<bool> {
    let job = match live::lock_if_free(id)? {
        Some(job) => job,
        // The holder of a ready job's row runs it. A waiting job's row is held by the scheduler that makes it ready, by an
        // enqueue of its key, or by a session that changes it: wait for the outcome.
        None if state == JobState::Available => return Ok(false),
        None => match live::lock(id)? {
            Some(job) => job,
            None => return Ok(false),
        },
    };
    if job.state.next(JobEvent::RetryNow) != Some(JobState::Available) {
        return Ok(false);
    }
    let position = position::next()?;
    spi::run(
        &MAKE_READY,
        params![id, Char(JobState::Available.code()), position, clock::now()],
    );
    announce(queue, job.job.priority, position);
    Ok(true)
}

/// False when the job is gone from the history: somebody else has just made it run again, or it has expired.
fn run_again(queue: &Definition, id: i64, finished: &live::Finished) -> Result<bool> {
    let beside = match &finished.unique_key {
        Some(key) => match unique::find(queue, cache::slot_of(queue), key)? {
            Found::Free { beside } => Some(beside),
            Found::Waiting(_) => return Err(key_waits(queue, id)),
        },
        None => None,
    };
    let position = position::next()?;
    let available = Char(JobState::Available.code());
    let most = queue.max_attempts;
    let moved = spi::run(
        &RUN_AGAIN,
        params![id, position, clock::now(), available, most, beside],
    );
    if moved == 0 {
        // Another job of the same key was enqueued just now; the error takes this move back.
        return finished
            .unique_key
            .as_ref()
            .map_or(Ok(false), |_| Err(key_waits(queue, id)));
    }
    // It is cancelled, whatever becomes of this transaction; before the row can be seen, which others would cancel again.
    promise::forget(id);
    if let Some(shared) = shared::get() {
        shared.cancels.forget_job(database::current(), id);
    }
    announce(queue, finished.priority, position);
    Ok(true)
}

fn key_waits(queue: &Definition, id: i64) -> Error {
    Error::new(
        SqlState::UNIQUE_VIOLATION,
        format!(
            "job {id} cannot run again: another of queue \"{}\" waits that has its unique key",
            queue.name
        ),
    )
    .hint("Wait for that job, or cancel it.")
}

sql_function!(pushy_job_retry, |call| {
    transaction::require_writable(c"pushy.job_retry()");
    retry(call.i64("id", 0)?)
});
