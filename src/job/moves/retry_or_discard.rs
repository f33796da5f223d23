//! An attempt failed: whether the job is tried again, and when, or ends. running → retryable, and on to available where the next
//! attempt is due at once; running → discarded. After a crash from available, because the claim is gone with its process.

use crate::pg::BuiltinOid;
use pushy_core::backoff;
use pushy_core::job_state::{JobEvent, JobState};

use super::rows::{announce_ready, end_as, Stored};
use super::{as_claimed, failure_hint, failure_rows, step};
use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::{live, position};
use crate::params;
use crate::pg::random;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::queue::control_channel;
use crate::queue::definition::QueueDefinition;
use crate::shared::pending;
use crate::shared::statistics::QueueCounts;

/// An attempt that failed.
pub struct Attempt<'a> {
    /// None: nobody knows.
    pub started_at: Option<Timestamp>,
    pub ended_at: Timestamp,
    pub error: &'a Error,
    /// What whoever ran the job wants to be next; None: as the queue says.
    pub next: Option<Next>,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug)]
pub enum Next {
    /// Another attempt after so long (µs), if one is left.
    RetryIn(i64),
    /// None, even if attempts are left.
    Discard,
}

static RETRY: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET attempt = $2, state = $3, position = $4, run_at = $5, leased = NULL, give_backs = 0, suspicions = 0 \
      WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::INT4OID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Charges an attempt, whatever the error's SQLSTATE, and decides what is next: another attempt, or the end, which is published.
/// Either is counted at commit. The job's row is held by this transaction; `from`: its state, running while its claim is this
/// transaction's.
pub fn fail(
    queue: &QueueDefinition,
    slot: Option<usize>,
    from: JobState,
    job: &Claimed,
    failed: &Attempt<'_>,
) -> Result<JobState> {
    let attempt = job.attempt + 1;
    let is_last = matches!(failed.next, Some(Next::Discard))
        || attempt >= job.max_attempts.unwrap_or(queue.max_attempts);
    let event = if is_last {
        JobEvent::FailLast
    } else {
        JobEvent::FailAgain
    };
    let state = step(job.id, as_claimed(job.id, from)?, event)?;
    if let Some(slot) = slot {
        let tally = QueueCounts {
            failed: 1,
            retried: u64::from(!is_last),
            discarded: u64::from(is_last),
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &tally);
    }
    let (started_at, now) = (failed.started_at, failed.ended_at);
    let error = failure_hint::hinted(queue, failed.error);
    let who = (job.id, job.enqueued_at);
    failure_rows::record(who, attempt, queue.queue_id, started_at, now, &error)?;
    if is_last {
        end_as(queue, job.id, state, attempt, started_at, now)?;
        control_channel::discarded(Some(queue), job.id)?;
        return Ok(state);
    }
    let delay = match failed.next {
        Some(Next::RetryIn(delay)) => delay,
        _ => delay_us(queue, attempt),
    };
    let due = now.plus_us(delay);
    let (state, stored) = if delay == 0 {
        let state = step(job.id, state, JobEvent::Due)?;
        (state, Stored::of(state, position::next()?))
    } else {
        (state, Stored::of(state, 0))
    };
    spi::run(
        &RETRY,
        params![
            live::place(job.id)?,
            attempt,
            stored.state,
            stored.position,
            due
        ],
    );
    match stored.position {
        Some(position) => announce_ready(queue.key(), slot, job.priority, position),
        None => pending::waiting_from(due.0),
    }
    Ok(state)
}

fn delay_us(queue: &QueueDefinition, attempt: i32) -> i64 {
    let most = if queue.max_retry_delay_us == 0 {
        i64::MAX / 4
    } else {
        queue.max_retry_delay_us
    };
    backoff::delay_us(
        queue.backoff,
        attempt as u32,
        queue.retry_delay_us,
        most,
        random::jitter(),
    )
}

/// Whether an error of our own statements says that the server lacks something: classes 53 (insufficient
/// resources) and 58 (system error). To be asked only of what happens around handlers, because what a handler
/// raises is the handler's, whatever its SQLSTATE.
pub fn is_infrastructure(sqlstate: SqlState) -> bool {
    let sqlstate = sqlstate.as_str();
    sqlstate.starts_with("53") || sqlstate.starts_with("58")
}
