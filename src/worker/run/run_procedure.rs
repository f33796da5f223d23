//! The job of a procedure: held by a lease, run in transactions of its own, and settled in one more.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::errors::{Error, Result, SqlState};
use crate::job::checkpoint;
use crate::job::claimed::{self, Claimed};
use crate::job::current::Earlier;
use crate::job::log;
use crate::job::moves::complete::Completed;
use crate::job::moves::hold;
use crate::job::moves::retry_or_discard::Attempt;
use crate::job::words::{self, Word};
use crate::pg::function::Answer;
use crate::pg::memory;
use crate::pg::per_process::PerProcess;
use crate::pg::procedure::Argument;
use crate::pg::value::{Timestamp, Uuid};
use crate::pg::{
    clock, database, ereport, function_catalog, identity, interrupts, latch, session, timeout,
    transaction, worker, BuiltinOid,
};
use crate::queue::eligibility::{Handler, HandlerArgument};
use crate::shared::cancels::Asked;
use crate::shared::executor::ExecutorSlot;
use crate::shared::{self, Shared};
use crate::worker::attribution::{Attribution, Span};
use crate::worker::batch::{BatchRunner, Ended, Work};
use crate::worker::executor;
use crate::worker::outcomes::{self, Outcomes};
use crate::worker::run_batch::Activity;
use crate::worker::run_job::{self, HandlerOutcome};

/// So long somebody's lock on the job's row is waited for; then the job is left to whoever finds it free.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(100);

/// A job that this executor holds by a lease.
#[derive(Clone, Copy)]
pub(in crate::worker) struct Hold {
    token: Uuid,
    handler: Handler,
    /// Where it stands when it is given back.
    position: i64,
}

/// This process may hold a job by a lease: from before that is committed until its end is written.
static HOLDS: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Before the permit is returned, whoever takes it next must see that a lease may be lost: one that was not settled is put back by
/// whoever looks first. Also for a process that ends.
pub(in crate::worker) fn let_go(shared: &Shared, me: &ExecutorSlot) {
    if HOLDS.get() {
        let_go_of(shared, me);
    }
}

#[cold]
fn let_go_of(shared: &Shared, me: &ExecutorSlot) {
    me.clear_batch();
    me.clear_hold();
    if let Some(database_slot) = shared.find_database(database::current()) {
        database_slot.lose_hold();
        shared.announce_due(database_slot, 0);
    }
    HOLDS.set(false);
}

impl BatchRunner {
    /// Turns the claim of one job into a lease, and commits it.
    #[cold]
    pub(in crate::worker) fn hold(
        &self,
        work: &Work,
        handler: Handler,
        claimed: &[Claimed],
        outcomes: &mut Outcomes,
    ) -> Result<Ended> {
        let job = &claimed[0];
        let token = identity::as_owner(|| hold::hold(&work.queue, job, clock::now()))?;
        HOLDS.set(true);
        shared::expect().executors[self.me].set_hold(token);
        outcomes.hold = Some(Hold {
            token,
            handler,
            position: job.position,
        });
        transaction::commit();
        Ok(Ended::Worked)
    }

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
                executor::stop_before_temporary_objects_go();
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
        let me = &shared::expect().executors[self.me];
        let note = self.recorder.note(self.me);
        let current = self.current(work, job, started_at);
        note.enter(
            work.queue.key().database,
            work.queue.queue_id,
            job.id,
            job.attempt,
            started_at,
        );
        // As before a function: so the caller of job_cancel sees that it runs, or it sees that it is cancelled.
        interrupts::forget_cancel();
        me.enter_job(work.queue.queue_id, job.id, job.attempt, started_at.0);
        if self.asked(work, job).is_some() {
            note.leave();
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
        me.leave_job();
        note.leave();
        Outcome::Ran {
            ran,
            started_at,
            ended_at: clock::now(),
        }
    }

    /// Writes down how the job ended. What the server lacks is waited for, as long as this executor may stay.
    fn settle(
        &self,
        work: &Work,
        job: &Claimed,
        hold: &Hold,
        outcome: Outcome,
        outcomes: &mut Outcomes,
    ) {
        let me = &shared::expect().executors[self.me];
        let since = Instant::now();
        let mut failures = 0;
        loop {
            interrupts::check();
            let settled = transaction::run(|| {
                identity::as_owner(|| self.settle_once(work, job, hold, &outcome, outcomes))
            });
            let wait = match settled {
                Ok(true) => {
                    HOLDS.set(false);
                    me.clear_hold();
                    return;
                }
                Ok(false) => AGAIN,
                Err(failure) if failure.is_busy() => AGAIN,
                Err(_) if is_extension_gone() => {
                    HOLDS.set(false);
                    return;
                }
                Err(failure) => {
                    if failures == 0 {
                        executor::WAITS.log(&failure);
                    }
                    failures += 1;
                    AGAIN * (1 << failures.min(9))
                }
            };
            let is_held_up = failures == 0 && since.elapsed() > PATIENCE;
            if is_held_up {
                log_held_up(job.id);
            }
            if is_held_up || me.stop_requested.load(Ordering::SeqCst) {
                return;
            }
            latch::wait(Some(wait));
        }
    }

    /// False: somebody has the job's row.
    fn settle_once(
        &self,
        work: &Work,
        claimed: &Claimed,
        hold: &Hold,
        outcome: &Outcome,
        outcomes: &mut Outcomes,
    ) -> Result<bool> {
        let (queue, slot) = (&work.queue, Some(work.slot));
        let job = match hold::find(claimed.id, hold.token)? {
            hold::Found::Mine(job) => job,
            hold::Found::Gone => return Ok(true),
            hold::Found::Busy => return Ok(false),
        };
        // With the row locked: who finds that the outcome is accepted waits for the row.
        let asked = {
            shared::expect().executors[self.me].accept(1);
            self.asked(work, claimed)
        };
        outcomes.left.clear();
        outcomes.done.clear();
        let give_back = |is_counted| hold::give_back(queue, slot, &job, hold.position, is_counted);
        let (ran, started_at, ended_at) = match (outcome, asked) {
            (_, Some(Asked::Open)) => {
                outcomes.left.push(0);
                return give_back(false).map(|()| true);
            }
            (Outcome::NotRun, Some(Asked::Committed)) => {
                return hold::cancel(queue, slot, &job, None).map(|()| true)
            }
            (Outcome::NotRun, None) => return give_back(false).map(|()| true),
            (
                Outcome::Ran {
                    ran,
                    started_at,
                    ended_at,
                },
                _,
            ) => (ran, *started_at, *ended_at),
        };
        outcomes.started = 1;
        let is_kept = match (&ran.result, &ran.word) {
            (_, _) if asked.is_some() => {
                hold::cancel(queue, slot, &job, Some(started_at))?;
                true
            }
            (Ok(_), Some(Word::Snooze(due))) => {
                hold::snooze(queue, slot, &job, *due)?;
                true
            }
            (Ok(_), _) => {
                let done = || Completed {
                    of: 0,
                    started_at,
                    finished_at: ended_at,
                    result: Answer::Null,
                };
                hold::complete(queue, slot, job.clone(), done())?;
                outcomes.done.push(done());
                queue.keep_completed_us > 0
            }
            (Err(error), word) => {
                let span = Span {
                    started_at,
                    at: ended_at,
                    timed_out: ran.timed_out,
                };
                match self.attribute(work, &job, error.clone(), &span, None) {
                    Attribution::Job(error) => {
                        let (error, next) = words::of_failure(word.clone(), error);
                        let failed = Attempt {
                            started_at: Some(started_at),
                            ended_at,
                            error: &error,
                            next,
                        };
                        hold::fail(queue, slot, &job, &failed)?;
                    }
                    Attribution::Cancel(_) | Attribution::Nobody => give_back(true)?,
                }
                true
            }
        };
        if log::is_any() {
            log::write(queue.queue_id, std::iter::once(&job).filter(|_| is_kept))?;
        }
        Ok(true)
    }
}

/// How far a procedure came.
enum Outcome {
    NotRun,
    Ran {
        ran: HandlerOutcome,
        started_at: Timestamp,
        ended_at: Timestamp,
    },
}

/// The procedure may have dropped it: then there is nothing to settle.
fn is_extension_gone() -> bool {
    let gone = transaction::run(|| Ok(identity::extension_oid().is_none()));
    matches!(gone, Ok(true))
}

fn log_held_up(job: i64) {
    ereport::log(
        &Error::new(
            SqlState::LOCK_NOT_AVAILABLE,
            format!("how job {job} ended could not be written, because somebody holds its row"),
        )
        .detail("Its procedure is called again, uncharged, once the row is free.")
        .hint("A transaction that was prepared may hold it: pg_prepared_xacts shows those."),
    );
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
