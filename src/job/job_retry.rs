//! pushy.job_retry, running a job now because somebody asks for it: one that waits for its time, or one that is finished, once more.

use pushy_core::job_state::JobState;

use super::cancel::queue_for_work;
use super::live::{self, Finished, Whereabouts};
use super::moves;
use super::unique_key::{self, KeyHolder};
use crate::errors::{Error, Result, SqlState};
use crate::pg::{identity, transaction};
use crate::queue::definition::QueueDefinition;
use crate::queue::{cache, control_channel};
use crate::shared::pending;
use crate::sql_function;

/// True when the job was made ready; false when it is ready or running as it is.
fn retry(id: i64) -> Result<bool> {
    let retried = match identity::as_owner(|| live::find_anywhere(id))? {
        None => return Err(Error::no_such_job(id)),
        // It would be made ready here and cancelled by the commit.
        Some(Whereabouts::Live(_)) if pending::has_asked(id) => return Err(is_cancelled(id)),
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
        control_channel::publish_of_job(control_channel::Of::Retry, queue, id)?;
    }
    Ok(retried.is_some())
}

fn run_now(queue: &QueueDefinition, id: i64, state: JobState) -> Result<bool> {
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
    if job.state == JobState::Available {
        return Ok(false);
    }
    moves::run_on_request::run_now(queue, &job)?;
    Ok(true)
}

/// False when the job is gone from the history: somebody else has just made it run again, or it has expired.
fn run_again(queue: &QueueDefinition, id: i64, finished: &Finished) -> Result<bool> {
    let beside = match &finished.unique_key {
        // A job that waits is let be, however deep it is.
        Some(key) => match unique_key::find(queue, cache::slot_of(queue), key, i32::MAX, None)? {
            KeyHolder::Free { beside } => Some(beside),
            KeyHolder::Waiting(_) => return Err(key_waits(queue, id)),
        },
        None => None,
    };
    if moves::run_on_request::run_again(queue, id, finished, beside)? {
        return Ok(true);
    }
    // Another job of the same key was enqueued just now; the error takes this move back.
    finished
        .unique_key
        .as_ref()
        .map_or(Ok(false), |_| Err(key_waits(queue, id)))
}

fn key_waits(queue: &QueueDefinition, id: i64) -> Error {
    Error::new(
        SqlState::UNIQUE_VIOLATION,
        format!(
            "job {id} cannot run again: another of queue \"{}\" waits that has its unique key",
            queue.name
        ),
    )
    .hint("Wait for that job, or cancel it.")
}

fn is_cancelled(id: i64) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("job {id} cannot run again: this transaction cancels it"),
    )
    .detail("It runs, and is cancelled when this transaction commits.")
    .hint("Call pushy.job_retry in a later transaction, when the job is cancelled.")
}

sql_function!(pushy_job_retry_v1, |call| {
    transaction::require_writable(c"pushy.job_retry()");
    retry(call.i64("job_id", 0)?)
});
