//! running → completed.

use pushy_core::job_state::{JobEvent, JobState};

use super::failure_rows;
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::{checkpoint, history, live, log};
use crate::params;
use crate::pg::function::Answer;
use crate::pg::heap::{self, Table};
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

/// Completes jobs whose rows this transaction holds, and has found in this file of the table. A batch is one multi-insert into the history and a
/// deletion by ctid for each job; as one SQL statement (DELETE … RETURNING, INSERT) with a kept plan it
/// fell to 3,400 jobs/s in batches of one, the plan being made for a table that was small then.
/// They are counted by the commit, all at once.
pub fn complete(
    queue: &QueueDefinition,
    slot: Option<usize>,
    claimed: &[Claimed],
    found_in: u32,
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
        let is_first = |done: &&Completed| !has_past(&claimed[done.of]);
        let first_time = done.iter().filter(is_first).count();
        if first_time > 0 {
            history::open_for_completed(first_time, kept_us, expires_at)?
                .append(done.iter().filter(is_first).map(row));
        }
        if first_time < done.len() {
            // They may have failures or a log, which are removed with single rows only.
            history::open_parent(expires_at)?
                .append(done.iter().filter(|done| !is_first(done)).map(row));
        }
    } else {
        let failed_before: Vec<i64> = done
            .iter()
            .map(|done| &claimed[done.of])
            .filter(|job| has_past(job))
            .map(|job| job.id)
            .collect();
        if !failed_before.is_empty() {
            failure_rows::remove(&failed_before, queue.queue_id)?;
            log::remove(&failed_before)?;
        }
    }
    if done.iter().any(|done| claimed[done.of].noted) {
        forget_checkpoints(done.iter().map(|done| &claimed[done.of]))?;
    }
    let table = heap::open("live_job")?;
    if table.file() == found_in {
        table.delete(done.iter().map(|done| claimed[done.of].tid));
        heap::advance_command();
    } else {
        delete_from(&table, done.iter().map(|done| claimed[done.of].id))?;
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

/// Whether something may be kept of the attempts before, or of this one.
#[inline]
fn has_past(job: &Claimed) -> bool {
    job.attempt > 0 || job.noted || (log::is_any() && log::has_of(job.id))
}

#[cold]
fn forget_checkpoints<'a>(jobs: impl Iterator<Item = &'a Claimed>) -> Result<()> {
    let noted: Vec<i64> = jobs.filter(|job| job.noted).map(|job| job.id).collect();
    checkpoint::remove(&noted)
}

/// Wherever they are by now.
#[cold]
fn delete_from(table: &Table, ids: impl Iterator<Item = i64>) -> Result<()> {
    for id in ids {
        table.delete(live::place(id)?.into_iter());
    }
    heap::advance_command();
    Ok(())
}
