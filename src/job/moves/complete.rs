//! running → completed.

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};

use super::claim;
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::history;
use crate::params;
use crate::pg::array;
use crate::pg::function::Answer;
use crate::pg::heap;
use crate::pg::spi::{self, Plan};
use crate::pg::value::{Char, Timestamp};
use crate::queue::definition::QueueDefinition;
use crate::shared::pending;
use crate::shared::statistics::QueueCounts;

const COMPLETED: JobState = JobState::Running.after(JobEvent::Succeed);

/// A job done, its effects in this transaction. `of`: its place among the claimed ones.
pub struct Completed {
    pub of: usize,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub result: Answer,
}

static FORGET_FAILURES: Plan = Plan::new(
    "DELETE FROM pushy_internal.failure f WHERE f.job_id OPERATOR(pg_catalog.=) ANY ($1) AND f.queue_id OPERATOR(pg_catalog.=) $2",
    &[BuiltinOid::INT8ARRAYOID, BuiltinOid::INT4OID],
);

/// Completes jobs whose rows this transaction holds. A batch is one multi-insert into the history and a
/// deletion by ctid for each job; as one SQL statement (DELETE … RETURNING, INSERT) with a kept plan it
/// fell to 3,400 jobs/s in batches of one, the plan being made for a table that was small then.
/// They are counted by the commit, all at once.
pub fn complete(
    queue: &QueueDefinition,
    slot: Option<usize>,
    claimed: &[Claimed],
    done: &[Completed],
) -> Result<()> {
    let Some(last) = done.last() else {
        return Ok(());
    };
    if queue.keep_completed_us > 0 {
        let kept_us = queue.keep_completed_us;
        let expires_at = last.finished_at.plus_us(kept_us);
        let row = |done: &Completed| {
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
                Char(COMPLETED.code()),
                job.unique_key.as_deref(),
                job.args,
                done.result,
            ]
        };
        let is_first = |done: &&Completed| claimed[done.of].attempt == 0;
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
            let params = params![array::of_int8s(&failed_before), queue.queue_id];
            spi::run(&FORGET_FAILURES, params);
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
    if let Some(slot) = slot {
        let completed = QueueCounts {
            completed: done.len() as u64,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &completed);
    }
    Ok(())
}

static DELETE: Plan = Plan::new(
    "DELETE FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::INT8ARRAYOID],
);

#[cold]
fn delete_by_number(ids: Vec<i64>) {
    spi::run(&DELETE, params![array::of_int8s(&ids)]);
}
