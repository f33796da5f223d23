//! The only door to a job's state: every legal move of a job is one function here. It asks the state machine
//! (`pushy_core::job_state`), changes the row, announces what the change means for others, and counts it. Nothing else writes the
//! tables of jobs and their failures (tools/lint_sql.py), but what removes history: retention, and the drop of a queue.
//!
//! | move | from | to |
//! | --- | --- | --- |
//! | [`enqueue`] | nothing | available, scheduled, or discarded at once |
//! | [`promote`] | scheduled, retryable | available |
//! | [`claim`] | available | running: a row lock, nothing is written |
//! | [`lease`] | available; running | running, and back: a claim that outlives its transaction, and is stored |
//! | [`hold`] | available; running | running, and back: the claim of an executor for a procedure |
//! | [`complete`] | running | completed |
//! | [`retry_or_discard`] | running, or available after a crash | retryable (and on to available), discarded |
//! | [`snooze`] | running | scheduled (and on to available) |
//! | [`give_back`] | the same as `retry_or_discard` | available |
//! | [`cancel`] | all that are not finished | cancelled |
//! | [`run_on_request`] | all but available and running | available |
//! | [`discard`] | the same as `cancel`, of a queue that is gone | discarded, or deleted with the queue |
//! | [`adopt`] | | the same, of another owner: jobs that a restore has brought |

pub mod adopt;
pub mod cancel;
pub mod claim;
pub mod complete;
pub mod discard;
pub mod enqueue;
mod failure_hint;
pub mod failure_rows;
pub mod give_back;
pub mod hold;
pub mod lease;
mod out_of_history;
pub mod promote;
pub mod retry_or_discard;
pub mod rise;
mod rows;
pub mod run_on_request;
pub mod snooze;

use pushy_core::job_state::{JobEvent, JobState};

use crate::errors::{Error, Result, SqlState};

/// The state of a job after an event; an error where the state machine has no such move, because then Pushy is wrong about
/// the job, and the transaction that is must not commit.
fn step(job: i64, from: JobState, event: JobEvent) -> Result<JobState> {
    from.next(event)
        .ok_or_else(|| no_such_move(job, from, event))
}

/// The state in which a job was claimed that is stored in this one. A crash may have taken back that it became available, because a
/// scheduler's commits are not flushed, and not the note of the flight recorder that says that it ran.
fn as_claimed(job: i64, stored: JobState) -> Result<JobState> {
    match stored {
        JobState::Scheduled | JobState::Retryable => step(job, stored, JobEvent::Due),
        other => Ok(other),
    }
}

#[cold]
fn no_such_move(job: i64, from: JobState, event: JobEvent) -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        format!(
            "job {job} is {} and cannot {}",
            from.as_str(),
            event.as_str()
        ),
    )
    .detail("This is an error in Pushy: nothing was changed.")
    .hint("Please report it, with what the server's log says before.")
}
