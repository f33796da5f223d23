//! The jobs of a queue, one after another, in the caller's session.

use pushy_core::job_state::JobState;

use super::refusals::no_procedures;
use crate::errors::{Error, Result, SqlState};
use crate::job::call;
use crate::job::checkpoint;
use crate::job::claimed::Claimed;
use crate::job::current::{self, Current, Earlier};
use crate::job::log;
use crate::job::moves::claim::{self, ClaimLimit};
use crate::job::moves::complete::{self, Completed};
use crate::job::moves::retry_or_discard::{self, Attempt};
use crate::job::moves::{cancel, promote, snooze};
use crate::job::promise;
use crate::job::words::{self, Word};
use crate::notice::buffer;
use crate::pg::handler::Callable;
use crate::pg::leftovers::Leftovers;
use crate::pg::memory::Context;
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, guc, identity, snapshot};
use crate::queue::definition::QueueDefinition;
use crate::queue::eligibility::{self, HandlerArgument};
use crate::shared::queue_slot::PRIORITIES;
use crate::shared::{self, pending};
use crate::watch;

mod memory {
    use super::Context;

    thread_local! {
        // For the life of the session, because an error may jump out while one of these contexts is current.
        static OF_RUN: (&'static Context, &'static Context) = (
            Box::leak(Box::new(Context::new(c"pushy queue_run"))),
            Box::leak(Box::new(Context::new(c"pushy queue_run job"))),
        );
    }

    /// For a job's arguments, handler and result.
    pub fn kept() -> &'static Context {
        OF_RUN.with(|both| both.0)
    }

    /// For what its handler allocates.
    pub fn of_job() -> &'static Context {
        OF_RUN.with(|both| both.1)
    }
}

/// What watches owe for the changes of this transaction becomes jobs now, and not at its end.
fn publish_and_flush() -> Result<()> {
    watch::publish_rest()?;
    buffer::flush_early()
}

pub(super) struct SessionRun<'a> {
    queue: &'a QueueDefinition,
    slot: Option<usize>,
    /// The time that it is taken to be; None: now.
    until: Option<Timestamp>,
    kept: &'static Context,
    memory: &'static Context,
    /// What is the session's own.
    before: Leftovers,
}

impl<'a> SessionRun<'a> {
    pub(super) fn of(
        queue: &'a QueueDefinition,
        slot: Option<usize>,
        until: Option<Timestamp>,
    ) -> Result<Self> {
        Ok(Self {
            queue,
            slot,
            until,
            kept: memory::kept(),
            memory: memory::of_job(),
            before: Leftovers::now()?,
        })
    }

    /// Runs the next job that is due; false when none is.
    pub(super) fn run_one(&self) -> Result<bool> {
        self.kept.reset();
        self.memory.reset();
        publish_and_flush()?;
        // Again before each job: the last one may have changed it.
        let handler =
            eligibility::check(self.queue).map_err(eligibility::Ineligible::into_error)?;
        if handler.is_procedure {
            return Err(no_procedures(self.queue));
        }
        let Some(job) = identity::as_owner(|| self.claim())? else {
            return Ok(false);
        };
        let earlier = if Earlier::is_any(&job) && handler.argument == HandlerArgument::Job {
            let queue_id = self.queue.queue_id;
            identity::as_owner(|| Earlier::of(&job, queue_id, |id| checkpoint::of(id, self.kept)))?
        } else {
            Earlier::NOTHING
        };
        let started_at = clock::now();
        let current = Current {
            queue: self.queue.name.as_str().into(),
            queue_id: self.queue.queue_id,
            max_attempts: job.max_attempts.unwrap_or(self.queue.max_attempts),
            started_at,
            job: job.clone(),
        };
        let callable = Callable::new(
            handler.oid,
            handler.argument != HandlerArgument::Nothing,
            handler.returns,
            self.kept,
        );
        // What the handler SETs, prepares or creates in pg_temp ends with its job, as in an executor.
        let settings = guc::nest();
        log::forget();
        checkpoint::forget();
        let listening = words::listen();
        let ended = current::during(current.clone(), || {
            call::call(
                &callable,
                handler.argument,
                &current,
                &earlier,
                self.memory,
                self.kept,
                || Ok(()),
            )
        });
        drop(listening);
        let word = words::take();
        settings.undo();
        self.before.remove_newer()?;
        let done = ended.map(|result| Completed {
            of: 0,
            started_at,
            finished_at: clock::now(),
            result,
        });
        self.record(&job, started_at, done, word)?;
        Ok(true)
    }

    /// The first ready job, its row locked until the transaction ends. The end announces it, because executors skip the row
    /// meanwhile and a rollback makes it free.
    fn claim(&self) -> Result<Option<Claimed>> {
        const ROWS: usize = 1000;
        let queue = self.queue;
        if let Some(database_slot) =
            shared::get().and_then(|all| all.find_database(database::current()))
        {
            promise::recall_at_once(database_slot)?;
        }
        let until = self.until.unwrap_or_else(clock::now);
        while promote::promote_of(queue, until, ROWS)? {}
        for priority in 0..PRIORITIES {
            let mut from = 0;
            loop {
                // It takes no watermark: executors look at what it passes over themselves.
                let passed_over = |_, _| {};
                let taken = {
                    let snapshot = snapshot::take();
                    let one = ClaimLimit::ONE;
                    claim::claim(
                        queue.queue_id,
                        priority,
                        from,
                        one,
                        &snapshot,
                        self.kept,
                        passed_over,
                    )?
                };
                let Some(job) = taken.rows.into_iter().next() else {
                    break;
                };
                if let Some(slot) = self.slot {
                    pending::locked(slot, queue.key(), priority, job.position);
                }
                if !cancel::is_cancelled_instead(queue, job.id)? {
                    return Ok(Some(job));
                }
                from = job.position as u64 + 1;
            }
        }
        Ok(None)
    }

    fn record(
        &self,
        job: &Claimed,
        started_at: Timestamp,
        done: Result<Completed>,
        word: Option<Word>,
    ) -> Result<()> {
        let from = JobState::Running;
        let is_done = done.is_ok() && word.is_none();
        let is_put_off = done.is_ok() && !is_done;
        match (done, word) {
            (Ok(_), Some(Word::Snooze(due))) => {
                identity::as_owner(|| snooze::snooze(self.queue, self.slot, from, job, due))
            }
            (Ok(done), _) => {
                let jobs = std::slice::from_ref(job);
                identity::as_owner(|| {
                    complete::complete(self.queue, self.slot, jobs, claim::claimed_in(), &[done])
                })
            }
            // Somebody cancels this session's statement, not the job.
            (Err(error), _) if error.sqlstate == SqlState::QUERY_CANCELED => {
                Err(Error::new(SqlState::QUERY_CANCELED, error.message))
            }
            (Err(error), word) => {
                let (error, next) = words::of_failure(word, error);
                let failed = Attempt {
                    started_at: Some(started_at),
                    ended_at: clock::now(),
                    error: &error,
                    next,
                };
                identity::as_owner(|| {
                    retry_or_discard::fail(self.queue, self.slot, from, job, &failed)
                })?;
                Ok(())
            }
        }?;
        if checkpoint::is_any() && !is_put_off {
            identity::as_owner(|| checkpoint::remove_unless_put_off(std::iter::once(job)))?;
        }
        if log::is_any() && !(is_done && self.queue.keep_completed_us == 0) {
            identity::as_owner(|| log::write(self.queue.queue_id, std::iter::once(job)))?;
        }
        Ok(())
    }
}
