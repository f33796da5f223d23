//! The job that an executor is at: noted where the flight recorder and other processes see it, with its timeout and its cancel.

use crate::job::claimed::Claimed;
use crate::job::current::Current;
use crate::pg::interrupts;
use crate::pg::value::Timestamp;
use crate::settings;
use crate::shared;
use crate::shared::cancels::Asked;
use crate::worker::batch::BatchRunner;
use crate::worker::work::Work;

impl BatchRunner {
    /// The job begins, unless its cancel was requested before: then that is the answer, and the job has ended.
    #[inline]
    pub(in crate::worker) fn begin(
        &self,
        work: &Work,
        job: &Claimed,
        started_at: Timestamp,
    ) -> Option<Asked> {
        self.recorder.note(self.me).enter(
            work.queue.key().database,
            work.queue.queue_id,
            job.id,
            job.attempt,
            started_at,
        );
        // A caller of job_cancel first writes its request and then looks which jobs run; the executor first publishes which
        // job runs and then reads the requests. So one of the two sees the other.
        interrupts::forget_cancel();
        let me = &shared::expect().executors[self.me];
        me.enter_job(work.queue.queue_id, job.id, job.attempt, started_at.0);
        let asked = self.asked(work, job);
        if asked.is_some() {
            self.end();
        }
        asked
    }

    /// The job that has begun ends.
    #[inline]
    pub(in crate::worker) fn end(&self) {
        shared::expect().executors[self.me].leave_job();
        self.recorder.note(self.me).leave();
    }

    /// Accepts the outcome of a job, and of those before it; answers the cancel that was requested of the job before that.
    pub(in crate::worker) fn accept(
        &self,
        work: &Work,
        claimed: &[Claimed],
        index: usize,
    ) -> Option<Asked> {
        shared::expect().executors[self.me].accept(index + 1);
        self.asked(work, &claimed[index])
    }

    pub(in crate::worker) fn asked(&self, work: &Work, job: &Claimed) -> Option<Asked> {
        let database = work.queue.key().database;
        shared::expect().cancels.asked(database, job.id)
    }

    pub(in crate::worker) fn timeout_us(&self, work: &Work, job: &Claimed) -> i64 {
        settings::capped_timeout_us(job.timeout_us.unwrap_or(work.queue.timeout_us))
    }

    pub(in crate::worker) fn current(
        &self,
        work: &Work,
        job: &Claimed,
        started_at: Timestamp,
    ) -> Current {
        Current {
            queue: std::rc::Rc::clone(&work.name),
            queue_id: work.queue.queue_id,
            max_attempts: job.max_attempts.unwrap_or(work.queue.max_attempts),
            started_at,
            job: job.clone(),
        }
    }
}
