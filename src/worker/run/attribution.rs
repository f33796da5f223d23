//! To whom an error is attributed: to the job, which is charged for it, or to nobody.

use std::sync::atomic::Ordering;

use pushy_core::batch;
use pushy_core::job_state::JobState;

use crate::errors::{Error, SqlState};
use crate::job::claimed::Claimed;
use crate::job::live::{self, Live};
use crate::job::moves::discard;
use crate::job::moves::give_back::{self, MAX_GIVE_BACKS};
use crate::job::moves::retry_or_discard::{self, Attempt};
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, session};
use crate::shared;
use crate::shared::cancels::Asked;
use crate::worker::batch::{BatchRunner, Ended};
use crate::worker::crash_verdict::SINGLE_US;
use crate::worker::outcomes::Outcomes;
use crate::worker::run_job;
use crate::worker::work::Work;

/// From when to when something ran, and whether its deadline had passed.
pub(in crate::worker) struct Span {
    pub(in crate::worker) started_at: Timestamp,
    pub(in crate::worker) at: Timestamp,
    pub(in crate::worker) timed_out: bool,
}

/// Whose an error is.
pub(in crate::worker) enum Attribution {
    Job(Error),
    /// Its cancel was asked for.
    Cancel(Asked),
    /// Somebody cancelled the executor, not the job.
    Nobody,
}

impl BatchRunner {
    /// To what a job's error is attributed. `asked`: the cancel that was requested of the job when its outcome was
    /// accepted.
    pub(in crate::worker) fn attribute(
        &self,
        work: &Work,
        job: &Claimed,
        error: Error,
        ran: &Span,
        asked: Option<Asked>,
    ) -> Attribution {
        if let Some(asked) = asked {
            // Whatever error the handler made of the interrupt.
            Attribution::Cancel(asked)
        } else if error.sqlstate != SqlState::QUERY_CANCELED {
            Attribution::Job(error)
        } else if ran.timed_out {
            let timeout_us = self.timeout_us(work, job);
            Attribution::Job(run_job::timeout_error(timeout_us, ran.started_at, ran.at))
        } else if job.give_backs < MAX_GIVE_BACKS {
            Attribution::Nobody
        } else {
            Attribution::Job(error)
        }
    }

    /// The transaction failed outside of any handler: at COMMIT, or in our own statements. Nobody pays
    /// for another: a larger batch is run again one by one, a batch of one is its job's failure.
    pub(in crate::worker) fn fail(
        &self,
        work: &mut Work,
        claimed: &[Claimed],
        outcomes: &Outcomes,
        failure: Error,
    ) -> Ended {
        // Whoever requests a cancel from here on waits for the job's row.
        shared::expect().executors[self.me].let_go();
        transaction::abort();
        // What no abort undoes: prepared statements, session locks.
        session::clean_between_jobs();
        self.recorder.note(self.me).leave();
        self.recorder.note(self.me).set_in_quarantine(false);
        work.previous = 0;
        work.previous_full = false;
        // What a trigger raises concerns its job alone, also where it says that the server lacks something:
        // the others of the queue need not wait for that.
        // Nor does a limit that a superuser has set: what the jobs have to publish may be above their role's share of the log, if
        // others of the role have written since the jobs were asked.
        let of_server = retry_or_discard::is_infrastructure(failure.sqlstate)
            && failure.sqlstate != SqlState::CONFIGURATION_LIMIT_EXCEEDED
            && !outcomes.is_running_deferred();
        // Somebody holds a lock that the bookkeeping needs after the jobs: they are run again, uncharged.
        let of_bookkeeping = failure.is_busy() && outcomes.deferred_ran;
        if of_server || of_bookkeeping || outcomes.started == 0 {
            return Ended::Failed(failure);
        }
        if outcomes.started > 1 || !batch::is_charged(failure.sqlstate.as_str(), claimed.len() == 1)
        {
            let until = clock::now().plus_us(SINGLE_US).0;
            let slot = &shared::expect().queues()[work.slot];
            slot.single_until.store(until, Ordering::Relaxed);
            return Ended::Worked;
        }
        let job = &claimed[0];
        let at = clock::now();
        let through_at = outcomes.through_at.unwrap_or(at);
        let timeout_us = self.timeout_us(work, job);
        let span = Span {
            started_at: through_at,
            at,
            timed_out: timeout_us > 0 && at.since_us(through_at) as i64 >= timeout_us,
        };
        let started_at = outcomes.done.first().map(|done| done.started_at);
        let recorded = transaction::run(|| {
            identity::as_owner(|| {
                let Some(Live {
                    state, job: there, ..
                }) = live::lock_if_free(job.id)?
                else {
                    return Ok(());
                };
                // Running: somebody has claimed it since, a worker outside or another executor's procedure.
                if there.attempt != job.attempt || state == JobState::Running {
                    return Ok(());
                }
                let (queue, slot) = (&work.queue, Some(work.slot));
                if outcomes.deferred_ran && failure.sqlstate == SqlState::UNIQUE_VIOLATION {
                    let ended = discard::finished_before(queue, slot, &there, started_at, at)?;
                    if ended {
                        return Ok(());
                    }
                }
                // Another may have had the row meanwhile, and have been asked: who has it looks.
                let asked = self.asked(work, job);
                match self.attribute(work, job, failure, &span, asked) {
                    Attribution::Job(error) => {
                        let failed = Attempt {
                            started_at,
                            ended_at: at,
                            error: &error,
                            next: None,
                        };
                        retry_or_discard::fail(queue, slot, state, &there, &failed).map(|_| ())
                    }
                    Attribution::Nobody => give_back::give_back(queue, slot, state, &there),
                    // Carried out when the batch is closed, or by whoever asks.
                    Attribution::Cancel(_) => Ok(()),
                }
            })
        });
        match recorded {
            Ok(()) => Ended::Worked,
            Err(failure) => Ended::Failed(failure),
        }
    }
}
