//! pushy.job_retry, running a job now because somebody asks for it: one that waits for its time, or one that is finished, once more.

use pushy_core::job_state::JobState;

use super::live::{self, Finished, Whereabouts};
use super::moves;
use super::unique_key::{self, KeyHolder};
use super::work_right::{queue_for_work, require_seen};
use crate::errors::{Error, Result, SqlState};
use crate::pg::{identity, interrupts, transaction};
use crate::queue::definition::QueueDefinition;
use crate::queue::{cache, control_channel};
use crate::shared::pending;
use crate::sql_function;

/// True when the job was made ready. False when it needs no more runs than it has: it is ready or running as it is, another of its
/// key runs in its place, or it has ended since the statement began. None of these is an error, because a statement that retries
/// all that a query finds would retry none then.
fn retry(id: i64) -> Result<bool> {
    loop {
        let (queue, attempt) = match identity::as_owner(|| live::find_anywhere(id))? {
            None => return require_seen(id).map(|()| false),
            // It would be made ready here and cancelled by the commit.
            Some(Whereabouts::Live(_)) if pending::has_asked(id) => return Err(is_cancelled(id)),
            Some(Whereabouts::Live(live)) => {
                let queue = queue_for_work(id, live.queue_id)?;
                let is_ready = identity::as_owner(|| run_now(&queue, id, live.state))?;
                (queue, Retry::of(is_ready))
            }
            Some(Whereabouts::Finished(finished)) => {
                let queue = queue_for_work(id, finished.queue_id)?;
                let attempt = identity::as_owner(|| run_again(&queue, id, &finished))?;
                (queue, attempt)
            }
        };
        match attempt {
            Retry::MadeReady => {
                control_channel::publish_of_job(control_channel::Of::Retry, &queue, id)?;
                return Ok(true);
            }
            Retry::Needless => return Ok(false),
            Retry::Moved => interrupts::check(),
        }
    }
}

/// How an attempt to make a job ready ended.
enum Retry {
    MadeReady,
    /// It runs as it is, or another of its key does.
    Needless,
    /// It is gone from where it was found, or another of its key came: look again.
    Moved,
}

impl Retry {
    fn of(is_ready: bool) -> Self {
        if is_ready {
            Self::MadeReady
        } else {
            Self::Needless
        }
    }
}

fn run_now(queue: &QueueDefinition, id: i64, state: JobState) -> Result<bool> {
    // A leased one's row is free, and its holder is not to wait for this transaction.
    if state == JobState::Running {
        return Ok(false);
    }
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
    if matches!(job.state, JobState::Available | JobState::Running) {
        return Ok(false);
    }
    moves::run_on_request::run_now(queue, &job)?;
    Ok(true)
}

/// `Moved` when the job is gone from the history, because somebody else has just made it run again, or it has expired; or when
/// another of its key was enqueued just now, which is found next time.
fn run_again(queue: &QueueDefinition, id: i64, finished: &Finished) -> Result<Retry> {
    let beside = match &finished.unique_key {
        // A job that waits is let be, however deep it is; it starts after this transaction has ended.
        Some(key) => match unique_key::find(queue, cache::slot_of(queue), key, i32::MAX, None)? {
            KeyHolder::Free { beside } => Some(beside),
            KeyHolder::Waiting(_) => return Ok(Retry::Needless),
        },
        None => None,
    };
    if moves::run_on_request::run_again(queue, id, finished, beside)? {
        return Ok(Retry::MadeReady);
    }
    Ok(Retry::Moved)
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
