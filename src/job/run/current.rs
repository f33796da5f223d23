//! The job that runs in this process now.

use std::cell::{Cell, RefCell};

use crate::job::checkpoint;
use crate::job::claimed::Claimed;
use crate::job::moves::failure_rows;

use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::identity;
use crate::pg::per_process::PerProcess;
use crate::pg::value::Timestamp;
use crate::{params, sql_function};

/// What user code may learn of the job it runs in.
#[derive(Clone)]
pub struct Current {
    /// As the queue was called when the job was claimed.
    pub queue: std::rc::Rc<str>,
    pub queue_id: i32,
    pub max_attempts: i32,
    pub started_at: Timestamp,
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

/// The running job's number, when it was enqueued, and its queue.
pub fn job_and_queue() -> Option<(i64, Timestamp, i32)> {
    CURRENT.with_borrow(|current| {
        let named = |c: &Current| (c.job.id, c.job.enqueued_at, c.queue_id);
        current.as_ref().map(named)
    })
}

/// A checkpoint is kept of the running job from now on.
pub fn note() {
    CURRENT.with_borrow_mut(|current| {
        if let Some(current) = current {
            current.job.noted = true;
        }
    });
}

pub fn id() -> Option<i64> {
    CURRENT.with_borrow(|current| current.as_ref().map(|c| c.job.id))
}

sql_function!(pushy_current_job_v1, |_call| {
    CURRENT.with_borrow(|current| -> Result<Answer> {
        let Some(current) = current else {
            return Ok(Answer::Null);
        };
        let earlier = if Earlier::is_any(&current.job) {
            identity::as_owner(|| Earlier::of(&current.job, current.queue_id, checkpoint::of_here))?
        } else {
            Earlier::NOTHING
        };
        crate::job::claimed::composite(current, &earlier)
    })
});

/// What the attempts before have left.
pub struct Earlier {
    last_error: Option<String>,
    checkpoint: Answer,
}

impl Earlier {
    pub const NOTHING: Self = Self {
        last_error: None,
        checkpoint: Answer::Null,
    };

    /// Whether there may be something.
    #[inline]
    pub fn is_any(job: &Claimed) -> bool {
        job.attempt > 0 || job.noted
    }

    /// As the extension's owner. `checkpoint` reads the last one.
    #[cold]
    pub fn of(
        job: &Claimed,
        queue_id: i32,
        checkpoint: impl FnOnce(i64) -> Answer,
    ) -> Result<Self> {
        Ok(Self {
            last_error: match job.attempt {
                0 => None,
                _ => failure_rows::last_message(job.id, queue_id)?,
            },
            checkpoint: if job.noted {
                checkpoint(job.id)
            } else {
                Answer::Null
            },
        })
    }
}

/// The columns of pushy.job as parameters of a row.
pub fn columns(current: &Current, earlier: &Earlier) -> Vec<Answer> {
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
        earlier.last_error.as_deref(),
        earlier.checkpoint,
    ]
    .to_vec()
}
