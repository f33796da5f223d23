//! The job of a procedure: run in transactions of its own.

use std::sync::atomic::Ordering;

use crate::errors::{Error, Result, SqlState};
use crate::job::checkpoint;
use crate::job::claimed::{self, Claimed};
use crate::job::current::Earlier;
use crate::pg::function::Answer;
use crate::pg::memory;
use crate::pg::procedure::Argument;
use crate::pg::value::Timestamp;
use crate::pg::{
    clock, ereport, function_catalog, identity, interrupts, session, timeout, transaction, worker,
    BuiltinOid,
};
use crate::queue::eligibility::{Handler, HandlerArgument};
use crate::shared;
use crate::worker::activity::Activity;
use crate::worker::batch::{BatchRunner, Ended};
use crate::worker::executor_process;
use crate::worker::outcomes::{self, Outcomes};
use crate::worker::procedure_outcome::Outcome;
use crate::worker::run_job;
use crate::worker::work::Work;

impl BatchRunner {
    /// Runs the job that is held, and settles it. Outside of any transaction.
    #[cold]
    pub(in crate::worker) fn run_procedure(
        &self,
        work: &Work,
        claimed: &[Claimed],
        outcomes: &mut Outcomes,
    ) -> Ended {
        let _held = interrupts::hold_cancels();
        memory::around_transaction(|| {
            let hold = outcomes.hold.expect("asked by the caller");
            let job = &claimed[0];
            let argument = match self.argument(work, &hold.handler, job) {
                Ok(argument) => argument,
                Err(failure) => {
                    self.settle(work, job, &hold, Outcome::NotRun, outcomes);
                    return Ended::Failed(failure);
                }
            };
            let started_at = clock::now();
            let outcome = self.perform(work, &hold.handler, argument, job, started_at);
            let cleaned = transaction::run(|| {
                session::clean_after_procedure();
                Ok(())
            });
            if session::has_temporary_schema() {
                executor_process::stop_before_temporary_objects_go();
            }
            self.settle(work, job, &hold, outcome, outcomes);
            outcomes::measure(work, claimed, outcomes);
            let me = &shared::expect().executors[self.me];
            me.jobs_done.fetch_add(1, Ordering::Relaxed);
            worker::report_statistics();
            match cleaned {
                Ok(()) => Ended::Worked,
                Err(failure) => {
                    log_unclean(&failure);
                    Ended::NoSession
                }
            }
        })
    }

    fn argument(&self, work: &Work, handler: &Handler, job: &Claimed) -> Result<Option<Argument>> {
        let memory = &self.batch_memory;
        match (handler.argument, job.args) {
            (HandlerArgument::Nothing, _) | (HandlerArgument::Jsonb, Answer::Null) => Ok(None),
            (HandlerArgument::Jsonb, Answer::Datum(value)) => Ok(Some(Argument {
                of_type: BuiltinOid::JSONBOID.value(),
                value,
            })),
            (HandlerArgument::Job, _) => transaction::run(|| {
                let earlier = if Earlier::is_any(job) {
                    identity::as_owner(|| {
                        Earlier::of(job, work.queue.queue_id, |id| checkpoint::of(id, memory))
                    })?
                } else {
                    Earlier::NOTHING
                };
                let current = self.current(work, job, clock::now());
                let value = memory.enter(|| claimed::composite(&current, &earlier))?;
                Ok(match (function_catalog::job_type(), value) {
                    (Some(of_type), Answer::Datum(value)) => Some(Argument { of_type, value }),
                    _ => None,
                })
            }),
        }
    }

    fn perform(
        &self,
        work: &Work,
        handler: &Handler,
        argument: Option<Argument>,
        job: &Claimed,
        started_at: Timestamp,
    ) -> Outcome {
        let current = self.current(work, job, started_at);
        // As before a function: so the caller of job_cancel sees that it runs, or it sees that it is cancelled.
        if self.begin(work, job, started_at).is_some() {
            return Outcome::NotRun;
        }
        Activity::of(&work.name).show(job.id);
        let timeout_us = self.timeout_us(work, job);
        let lock_patience = timeout::bound_lock_waits(timeout::NO_BOUND);
        let cancels = interrupts::release_cancels();
        let ran = run_job::run_procedure(
            handler.oid,
            argument,
            &current,
            timeout_us,
            &self.job_memory,
        );
        drop(cancels);
        drop(lock_patience);
        self.end();
        Outcome::Ran {
            ran,
            started_at,
            ended_at: clock::now(),
        }
    }
}

fn log_unclean(failure: &Error) {
    ereport::log(
        &Error::new(
            SqlState::INTERNAL_ERROR,
            format!(
                "the session of an executor could not be cleaned after a procedure: {} (SQLSTATE {})",
                failure.message, failure.sqlstate.as_str()
            ),
        )
        .hint("Nothing is lost: the executor leaves, and another one comes."),
    );
}
