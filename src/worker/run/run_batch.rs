//! The jobs of a batch, one after another, and what they have deferred to its end.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pushy_core::batch::{self, AfterJob, BatchPlan};

use crate::errors::{Error, Result, SqlState};
use crate::job::checkpoint;
use crate::job::claimed::Claimed;
use crate::job::current::Earlier;
use crate::job::moves::complete::Completed;
use crate::job::words::{self, Word};
use crate::notice::buffer;
use crate::pg::function::Answer;
use crate::pg::handler::Callable;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, interrupts, session, timeout, transaction};
use crate::queue::eligibility::{self, Handler};
use crate::shared;
use crate::shared::cancels::Asked;
use crate::worker::activity::Activity;
use crate::worker::attribution::{Attribution, Span};
use crate::worker::batch::BatchRunner;
use crate::worker::outcomes::{Failed, Outcomes};
use crate::worker::run_job;
use crate::worker::work::Work;

/// How long the first job of a batch waits for a lock while others are claimed behind it: longer than a batch of another
/// executor holds its locks. A job that is put off comes again with none behind it, and may wait.
const FIRST_LOCK_TIMEOUT_MS: i32 = 200;
/// How long later jobs of a batch wait for a lock before they are put off: short, because their batch holds locks itself.
const LATER_LOCK_TIMEOUT_MS: i32 = 50;

/// How a job ended.
pub(in crate::worker) struct JobOutcome {
    pub(in crate::worker) result: Result<Answer>,
    /// It failed, and its deadline had passed.
    pub(in crate::worker) timed_out: bool,
    /// The job had done its work, which was not accepted because its cancel had been requested.
    pub(in crate::worker) refused: Option<Asked>,
    /// What its handler has said of its end.
    pub(in crate::worker) word: Option<Word>,
}

impl BatchRunner {
    pub(in crate::worker) fn run_all(
        &self,
        work: &Work,
        handler: &Handler,
        single: bool,
        began: Timestamp,
        claimed: &[Claimed],
        outcomes: &mut Outcomes,
    ) -> Result<()> {
        let shared = shared::expect();
        let me = &shared.executors[self.me];
        let callable = Callable::new(
            handler.oid,
            handler.argument != eligibility::HandlerArgument::Nothing,
            handler.returns,
            &self.batch_memory,
        );
        let is_only = claimed.len() == 1;
        let mut is_later = false;
        let bound = |ms| if is_only { timeout::NO_BOUND } else { ms };
        let mut lock_patience = Some(timeout::bound_lock_waits(bound(FIRST_LOCK_TIMEOUT_MS)));
        let mut activity = Activity::of(&work.name);
        // A job begins when the one before it has ended.
        let mut before = None;
        let mut asked_for_idle = began;
        for (index, job) in claimed.iter().enumerate() {
            if index > 0 && (job.suspicions > 0 || me.stop_requested.load(Ordering::SeqCst)) {
                break;
            }
            if outcomes.started > 0 && !is_later {
                is_later = true;
                drop(lock_patience.take());
                lock_patience = Some(timeout::bound_lock_waits(bound(LATER_LOCK_TIMEOUT_MS)));
            }
            let first_is_done = || outcomes.done.first().is_some_and(|done| done.of == 0);
            if index == 1 && first_is_done() && self.accept(work, claimed, 0).is_some() {
                // While it is the only one that has run, it can be rolled back with the transaction.
                return Err(was_cancelled());
            }
            if index > 0 && outcomes.are_of_another_depth(claimed, job.depth) {
                self.run_deferred_before(work, claimed, outcomes)?;
                before = None;
            }
            activity.show(job.id);
            let started_at = before.take().unwrap_or_else(clock::now);
            let ran = match self.run_one(work, handler, &callable, claimed, index, started_at)? {
                Ok(ran) => ran,
                Err(asked) => {
                    outcomes.started = index + 1;
                    outcomes.give_way(index, asked, None);
                    continue;
                }
            };
            let now = clock::now();
            let sqlstate = ran.result.as_ref().err().map(|error| error.sqlstate);
            match ran.result {
                Ok(_) if ran.word.is_some() => outcomes.put_off_by(index, started_at, ran.word),
                Ok(result) => {
                    before = Some(now);
                    outcomes.done.push(Completed {
                        of: index,
                        started_at,
                        finished_at: now,
                        result,
                    });
                }
                Err(error) if !batch::is_charged(error.sqlstate.as_str(), is_only) => {
                    outcomes.put_off = true;
                    break;
                }
                Err(error) => {
                    let asked = ran.refused.or_else(|| self.accept(work, claimed, index));
                    let span = Span {
                        started_at,
                        at: now,
                        timed_out: ran.timed_out,
                    };
                    match self.attribute(work, job, error, &span, asked) {
                        Attribution::Job(error) => {
                            let (error, next) = words::of_failure(ran.word, error);
                            outcomes.failed.push(Failed {
                                index,
                                started_at,
                                at: now,
                                error,
                                next,
                            })
                        }
                        Attribution::Cancel(asked) => {
                            outcomes.give_way(index, asked, Some(started_at))
                        }
                        Attribution::Nobody => outcomes.given_back.push(index),
                    }
                }
            }
            outcomes.started = index + 1;
            if outcomes.given_back.last() == Some(&index) {
                // The job keeps its place, so those behind it must not run before.
                break;
            }
            let after = AfterJob {
                single: single || job.suspicions > 0,
                elapsed_us: now.since_us(began),
                jobs: index as u32 + 1,
                subxids: transaction::subtransaction_ids(),
                memory: self.batch_memory.allocated(),
                had_key: job.unique_key.is_some(),
                used_temporary: session::used_temporary_objects(),
                set_constraints: session::take_constraints_set(),
                failure: sqlstate.as_ref().map(SqlState::as_str),
            };
            if batch::ends_batch(&after).is_some() {
                break;
            }
            if now.since_us(asked_for_idle) >= BatchPlan::ASK_FOR_IDLE_US {
                asked_for_idle = now;
                let holds_some = index + 1 < claimed.len();
                if holds_some && shared.has_idle_for(work.slot, now.0) {
                    // The commit announces the rest of the claim, which wakes the idle executor.
                    break;
                }
            }
        }
        drop(lock_patience);
        for (index, job) in claimed.iter().enumerate().skip(outcomes.started) {
            if shared.cancels.includes(work.queue.key().database, job.id) {
                outcomes.cancelled.push((index, None));
            }
        }
        Ok(())
    }

    /// What the jobs have deferred to the commit: user code still, so it has a deadline, can be cancelled
    /// (when it is one job's) and leaves nothing in the session.
    pub(in crate::worker) fn run_deferred(
        &self,
        work: &Work,
        claimed: &[Claimed],
        outcomes: &mut Outcomes,
    ) -> Result<()> {
        let shared = shared::expect();
        let me = &shared.executors[self.me];
        let started = &claimed[..outcomes.started];
        let now = clock::now();
        outcomes.through_at = Some(now);
        if let ([job], [done]) = (started, &outcomes.done[..]) {
            interrupts::forget_cancel();
            let started_at = done.started_at;
            me.enter_job(work.queue.queue_id, job.id, job.attempt, started_at.0);
            if self.asked(work, job).is_some() {
                return Err(was_cancelled());
            }
        }
        let is_only = claimed.len() == 1;
        let lock_patience = timeout::bound_lock_waits(if is_only {
            timeout::NO_BOUND
        } else {
            LATER_LOCK_TIMEOUT_MS
        });
        self.run_deferred_of(work, &started[outcomes.deferred_ran_of..], now)?;
        buffer::expect_share()?;
        outcomes.deferred_ran = true;
        drop(lock_patience);
        me.leave_job();
        if started.len() == 1 && outcomes.done.len() == 1 && self.accept(work, claimed, 0).is_some()
        {
            return Err(was_cancelled());
        }
        Ok(())
    }

    /// The same of the jobs so far, before one of another depth begins, because what they have deferred to the commit is as
    /// deep as they are: of a stranger's deep job nothing rubs off on others of its batch, and a circle of jobs still ends.
    #[cold]
    fn run_deferred_before(
        &self,
        work: &Work,
        claimed: &[Claimed],
        outcomes: &mut Outcomes,
    ) -> Result<()> {
        let now = clock::now();
        outcomes.through_at = Some(now);
        self.run_deferred_of(
            work,
            &claimed[outcomes.deferred_ran_of..outcomes.started],
            now,
        )?;
        outcomes.through_at = None;
        outcomes.deferred_ran_of = outcomes.started;
        Ok(())
    }

    fn run_deferred_of(&self, work: &Work, jobs: &[Claimed], now: Timestamp) -> Result<()> {
        let timeouts = jobs.iter().map(|job| self.timeout_us(work, job));
        let timeout_us = if timeouts.clone().any(|timeout_us| timeout_us == 0) {
            0
        } else {
            timeouts.max().unwrap_or(0)
        };
        // By which of them it was caused cannot be told; they are equally deep.
        let one = jobs.last();
        let _cancels = interrupts::release_cancels();
        run_job::run_deferred(timeout_us, one.map(|job| self.current(work, job, now)))
    }

    /// Runs a job; the error is the cancel that was requested before it began.
    pub(in crate::worker) fn run_one(
        &self,
        work: &Work,
        handler: &Handler,
        callable: &Callable,
        claimed: &[Claimed],
        index: usize,
        started_at: Timestamp,
    ) -> Result<std::result::Result<JobOutcome, Asked>> {
        let job = &claimed[index];
        let earlier =
            if Earlier::is_any(job) && handler.argument == eligibility::HandlerArgument::Job {
                let _bookkeeping = timeout::bound_lock_waits(LATER_LOCK_TIMEOUT_MS);
                let (memory, queue_id) = (&self.batch_memory, work.queue.queue_id);
                identity::as_owner(|| Earlier::of(job, queue_id, |id| checkpoint::of(id, memory)))?
            } else {
                Earlier::NOTHING
            };
        let current = self.current(work, job, started_at);
        if let Some(asked) = self.begin(work, job, started_at) {
            return Ok(Err(asked));
        }
        // The first job is accepted when another begins, or at the end: until then the transaction is that job's alone, and
        // what it has deferred can be cancelled too.
        let refused = Cell::new(None);
        let accept = || {
            if index > 0 {
                refused.set(self.accept(work, claimed, index));
            }
            refused.get().map_or(Ok(()), |_| Err(was_cancelled()))
        };
        let cancels = interrupts::release_cancels();
        let ran = run_job::run(
            callable,
            handler.argument,
            &current,
            &earlier,
            self.timeout_us(work, job),
            &self.job_memory,
            &self.batch_memory,
            accept,
        );
        drop(cancels);
        self.end();
        let refused = refused.get();
        Ok(Ok(JobOutcome {
            result: ran.result,
            timed_out: ran.timed_out,
            refused,
            word: ran.word,
        }))
    }
}

#[cold]
fn was_cancelled() -> Error {
    Error::new(SqlState::QUERY_CANCELED, "the job was cancelled")
}
