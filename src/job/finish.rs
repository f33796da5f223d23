//! The end of an attempt: completed, to be tried again, discarded, given back.

use crate::pg::BuiltinOid;
use pushy_core::backoff;
use pushy_core::state::JobState;

use super::claim;
use super::claimed::Claimed;
use super::failure;
use super::history;
use super::position;
use crate::errors::Result;
use crate::pg::array;
use crate::pg::function::Answer;
use crate::pg::heap;
use crate::pg::random;
use crate::pg::spi::{self, Plan};
use crate::pg::subtransaction::CallError;
use crate::pg::value::{Char, Timestamp};
use crate::queue::control;
use crate::queue::definition::Definition;
use crate::shared::pending;
use crate::shared::statistics::Tally;
use crate::{kept_columns, params};

/// A job done, its effects in this transaction. `of`: its place among the claimed ones.
pub struct Done {
    pub of: usize,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub result: Answer,
}

static FORGET_FAILURES: Plan = Plan::new(
    "DELETE FROM pushy.failure f WHERE f.job_id OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::INT8ARRAYOID],
);

/// Completes jobs whose rows this transaction holds. A batch is one multi-insert into the history and a
/// deletion by ctid for each job; as one SQL statement (DELETE … RETURNING, INSERT) with a kept plan it
/// fell to 3,400 jobs/s in batches of one, the plan being made for a table that was small then.
pub fn complete(queue: &Definition, claimed: &[Claimed], done: &[Done]) -> Result<()> {
    let Some(last) = done.last() else {
        return Ok(());
    };
    if queue.keep_completed_us > 0 {
        let kept_us = queue.keep_completed_us;
        let expires_at = last.finished_at.plus_us(kept_us);
        let row = |done: &Done| {
            let job = &claimed[done.of];
            *params![
                job.id,
                expires_at,
                job.run_at,
                job.enqueued_at,
                done.started_at,
                done.finished_at,
                job.timeout_us,
                job.caused_by,
                queue.queue_id,
                job.enqueued_by,
                job.attempt + 1,
                job.max_attempts,
                job.priority,
                job.depth as i16,
                Char(JobState::Completed.code()),
                job.unique_key.as_deref(),
                job.args,
                done.result,
            ]
        };
        let is_first = |done: &&Done| claimed[done.of].attempt == 0;
        let first_time = done.iter().filter(is_first).count();
        if first_time > 0 {
            history::open_for_completed(first_time, kept_us, expires_at)?
                .append(done.iter().filter(is_first).map(row));
        }
        if first_time < done.len() {
            // They may have failures, which are removed with single rows only.
            history::open_parent(expires_at)?
                .append(done.iter().filter(|done| !is_first(done)).map(row));
        }
    } else {
        let failed_before: Vec<i64> = done
            .iter()
            .map(|done| &claimed[done.of])
            .filter(|job| job.attempt > 0)
            .map(|job| job.id)
            .collect();
        if !failed_before.is_empty() {
            spi::run(&FORGET_FAILURES, params![array::of_int8s(&failed_before)]);
        }
    }
    let table = heap::open("live_job")?;
    if claim::is_in_place(&table) {
        table.delete(done.iter().map(|done| claimed[done.of].tid));
        heap::advance_command();
    } else {
        drop(table);
        delete_by_number(done.iter().map(|done| claimed[done.of].id).collect());
    }
    Ok(())
}

static DELETE: Plan = Plan::new(
    "DELETE FROM pushy.live_job j WHERE j.id OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::INT8ARRAYOID],
);

#[cold]
fn delete_by_number(ids: Vec<i64>) {
    spi::run(&DELETE, params![array::of_int8s(&ids)]);
}

static RETRY: Plan = Plan::new(
    "UPDATE pushy.live_job SET attempt = $2, state = $3, position = $4, run_at = $5, strikes = 0, alone = 0 \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

static MOVE_TO_FINISHED: Plan = Plan::new(
    concat!(
        "WITH gone AS (DELETE FROM pushy.live_job j WHERE j.id OPERATOR(pg_catalog.=) $1 RETURNING j.*) \
         INSERT INTO pushy.finished_job (expires_at, started_at, finished_at, attempt, state, run_at, max_attempts, ",
        kept_columns!(),
        ") SELECT $2, $3, $4, $5, $6, run_at, max_attempts, ",
        kept_columns!(),
        " FROM gone"
    ),
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT4OID,
        BuiltinOid::CHAROID,
    ],
);

/// Moves an unfinished job, whose row this transaction holds, among the finished ones.
pub fn end_as(
    queue: &Definition,
    job: i64,
    state: JobState,
    attempt: i32,
    started_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<()> {
    let expires_at = now.plus_us(queue.keep_discarded_us);
    spi::run(
        &MOVE_TO_FINISHED,
        params![
            job,
            expires_at,
            started_at,
            now,
            attempt,
            Char(state.code())
        ],
    );
    pending::due(history::removal_due(expires_at));
    Ok(())
}

/// Charges an attempt, whatever the error's SQLSTATE, and decides what is next: another attempt, or the end, which is told.
/// Either is counted at commit. The job's row is held by this transaction.
pub fn fail(
    queue: &Definition,
    slot: Option<usize>,
    job: &Claimed,
    started_at: Option<Timestamp>,
    now: Timestamp,
    error: &CallError,
) -> Result<()> {
    let attempt = job.attempt + 1;
    let last = attempt >= job.max_attempts.unwrap_or(queue.max_attempts);
    if let Some(slot) = slot {
        let tally = Tally {
            failed: 1,
            retried: u64::from(!last),
            discarded: u64::from(last),
            ..Tally::default()
        };
        pending::count(slot, queue.key(), &tally);
    }
    failure::record(job.id, attempt, queue.queue_id, started_at, now, error)?;
    if last {
        end_as(queue, job.id, JobState::Discarded, attempt, started_at, now)?;
        return control::discarded(Some(&queue.name), job.id);
    }
    let delay = backoff::delay_us(
        queue.backoff,
        attempt as u32,
        queue.retry_delay_us,
        if queue.max_retry_delay_us == 0 {
            i64::MAX / 4
        } else {
            queue.max_retry_delay_us
        },
        random::jitter(),
    );
    if delay == 0 {
        let position = position::next()?;
        spi::run(
            &RETRY,
            params![
                job.id,
                attempt,
                Char(JobState::Available.code()),
                position,
                now
            ],
        );
        if let Some(slot) = slot {
            pending::ready(slot, queue.key(), job.priority as usize, position, 0);
        }
    } else {
        let due = now.plus_us(delay);
        spi::run(
            &RETRY,
            params![
                job.id,
                attempt,
                Char(JobState::Retryable.code()),
                Answer::Null,
                due
            ],
        );
        pending::waiting_from(due.0);
    }
    Ok(())
}

/// Whether an error of our own statements says that the server lacks something: classes 53 (insufficient
/// resources) and 58 (system error). To be asked only of what happens around handlers, because what a handler
/// raises is the handler's, whatever its SQLSTATE.
pub fn is_infrastructure(sqlstate: &str) -> bool {
    sqlstate.starts_with("53") || sqlstate.starts_with("58")
}

static STRIKE: Plan = Plan::new(
    "UPDATE pushy.live_job SET strikes = strikes OPERATOR(pg_catalog.+) 1::pg_catalog.int2 \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID],
);

/// Times a job may be given back uncharged in a row; the next time is charged.
pub const MOST_STRIKES: i16 = 3;

/// Gives a job back uncharged: it was cut short by somebody else. Ready again, at its old place.
pub fn give_back(queue: &Definition, slot: Option<usize>, job: &Claimed) -> Result<()> {
    spi::run(&STRIKE, params![job.id]);
    if let Some(slot) = slot {
        pending::ready(slot, queue.key(), job.priority as usize, job.position, 0);
    }
    Ok(())
}
