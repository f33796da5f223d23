//! The job that runs in this process now.

use std::cell::{Cell, RefCell};

use crate::job::claimed::Claimed;
use crate::job::moves::failure_rows;

use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::identity;
use crate::pg::per_process::PerProcess;
use crate::{params, sql_function};

/// What user code may learn of the job it runs in.
#[derive(Clone)]
pub struct Current {
    /// As the queue was called when the job was claimed.
    pub queue: std::rc::Rc<str>,
    pub queue_id: i32,
    pub max_attempts: i32,
    pub started_at: crate::pg::value::Timestamp,
    pub job: Claimed,
}

static CURRENT: PerProcess<RefCell<Option<Current>>> = PerProcess::new(RefCell::new(None));

/// Makes `job` the running one until `leave`.
pub fn enter(job: Current) {
    CURRENT.replace(Some(job));
}

pub fn leave() {
    CURRENT.replace(None);
}

/// Runs `work` as a part of `job`; for sessions, where an error goes on to somebody else.
pub fn during<T>(job: Current, work: impl FnOnce() -> T) -> T {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            leave();
        }
    }
    enter(job);
    let _leave = Leave;
    work()
}

/// The number and depth of a job.
pub type Cause = (i64, i32);

static BEHALF: PerProcess<Cell<Option<Option<Cause>>>> = PerProcess::new(Cell::new(None));

/// What causes the jobs that are enqueued now: the running job.
pub fn cause() -> Option<Cause> {
    BEHALF.get().unwrap_or_else(|| {
        CURRENT.with_borrow(|current| current.as_ref().map(|c| (c.job.id, c.job.depth)))
    })
}

/// Runs `work` on behalf of the job that caused it earlier, or of none.
pub fn on_behalf_of<T>(cause: Option<Cause>, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Option<Cause>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            BEHALF.set(self.0);
        }
    }
    let _restore = Restore(BEHALF.replace(Some(cause)));
    work()
}

/// Whether a job of this queue is the running one. By number, because the job itself may have given the queue another name.
pub fn is_of(queue_id: i32) -> bool {
    CURRENT.with_borrow(|current| current.as_ref().is_some_and(|c| c.queue_id == queue_id))
}

pub fn id() -> Option<i64> {
    CURRENT.with_borrow(|current| current.as_ref().map(|c| c.job.id))
}

sql_function!(pushy_current_job_v1, |_call| {
    CURRENT.with_borrow(|current| -> Result<Answer> {
        let Some(current) = current else {
            return Ok(Answer::Null);
        };
        let last_error = if current.job.attempt > 0 {
            identity::as_owner(|| failure_rows::last_message(current.job.id, current.queue_id))?
        } else {
            None
        };
        crate::job::claimed::composite(current, last_error.as_deref())
    })
});

/// The columns of pushy.job as parameters of a row.
pub fn columns(current: &Current, last_error: Option<&str>) -> Vec<Answer> {
    let job = &current.job;
    params![
        job.id,
        &*current.queue,
        job.args,
        "running",
        i32::from(job.priority),
        job.attempt + 1,
        current.max_attempts,
        job.run_at,
        job.enqueued_at,
        identity::role_name_or_null(job.enqueued_by),
        job.unique_key.as_deref(),
        job.caused_by,
        job.depth,
        current.started_at,
        Answer::Null,
        Answer::Null,
        last_error,
    ]
    .to_vec()
}
