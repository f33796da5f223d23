//! What runs now, as executors' slots have it: no row says so, because a claim writes nothing.

use std::sync::atomic::Ordering;

use crate::errors::Result;
use crate::pg::database;
use crate::pg::function::{Answer, Call};
use crate::pg::value::Timestamp;
use crate::queue::privilege::Privilege;
use crate::queue::visible;
use crate::shared::executor::{ExecutorSlot, ExecutorState, Progress};
use crate::shared::{self, Shared};
use crate::{row, sql_function};

sql_function!(pushy_running_jobs_v1, |call| running_jobs(call));

/// The jobs of this database that run now, of queues that the caller may monitor.
fn running_jobs(call: Call) -> Result<Answer> {
    let running: Vec<Running> = shared::get().map(running_here).unwrap_or_default();
    call.answer_rows(|rows| {
        if running.is_empty() {
            return Ok(());
        }
        let visible = visible::by_id(Privilege::Monitor)?;
        for job in running {
            if visible.contains_key(&job.queue_id) {
                let message = (!job.progress.message.is_empty()).then_some(job.progress.message);
                rows.put(row![
                    job.id,
                    job.attempt,
                    job.started_at,
                    job.progress.fraction,
                    message,
                ]);
            }
        }
        Ok(())
    })
}

struct Running {
    id: i64,
    queue_id: i32,
    attempt: i32,
    started_at: Timestamp,
    progress: Progress,
}

fn running_here(shared: &Shared) -> Vec<Running> {
    let here = database::current();
    shared
        .executors
        .iter()
        .filter(|executor| {
            executor.state() != ExecutorState::Free
                && executor.database.load(Ordering::SeqCst) == here
        })
        .filter_map(running_in)
        .collect()
}

/// Of a job that an executor of this database runs now: which attempt it is, and since when.
pub fn attempt(id: i64) -> Option<(i32, Timestamp)> {
    let running = shared::get().map(running_here).unwrap_or_default();
    let job = running.into_iter().find(|job| job.id == id)?;
    Some((job.attempt, job.started_at))
}

/// The job of one executor; read again when the executor went on to its next job meanwhile.
fn running_in(executor: &ExecutorSlot) -> Option<Running> {
    // Bounded: by the jobs that the executor ends meanwhile, each of which takes longer than this.
    loop {
        let id = executor.job.load(Ordering::SeqCst);
        if id == 0 {
            return None;
        }
        let running = Running {
            id,
            queue_id: executor.queue_id.load(Ordering::SeqCst),
            // The slot has the attempts charged before this one.
            attempt: executor.attempt.load(Ordering::SeqCst) + 1,
            started_at: Timestamp(executor.job_started_at.load(Ordering::SeqCst)),
            progress: executor.progress(),
        };
        if executor.job.load(Ordering::SeqCst) == id {
            return Some(running);
        }
    }
}
