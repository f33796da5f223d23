//! How a procedure's job ended, written down in a transaction of its own.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::moves::complete::Completed;
use crate::job::moves::hold;
use crate::job::moves::retry_or_discard::Attempt;
use crate::job::words::{self, Word};
use crate::job::{checkpoint, log};
use crate::pg::function::Answer;
use crate::pg::value::Timestamp;
use crate::pg::{ereport, identity, interrupts, latch, transaction};
use crate::queue::definition;
use crate::shared;
use crate::shared::cancels::Asked;
use crate::worker::attribution::{Attribution, Span};
use crate::worker::batch::BatchRunner;
use crate::worker::executor;
use crate::worker::hold::{forget, Hold};
use crate::worker::outcomes::Outcomes;
use crate::worker::run_job::HandlerOutcome;
use crate::worker::work::Work;

/// So long somebody's lock on the job's row is waited for; then the job is left to whoever finds it free.
const PATIENCE: Duration = Duration::from_secs(5);
const AGAIN: Duration = Duration::from_millis(100);

/// How far a procedure came.
pub(super) enum Outcome {
    NotRun,
    Ran {
        ran: HandlerOutcome,
        started_at: Timestamp,
        ended_at: Timestamp,
    },
}

impl BatchRunner {
    /// Writes down how the job ended. What the server lacks is waited for, as long as this executor may stay.
    pub(super) fn settle(
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
                    forget();
                    me.clear_hold();
                    return;
                }
                Ok(false) => AGAIN,
                Err(failure) if failure.is_busy() => AGAIN,
                Err(_) if is_extension_gone() => {
                    forget();
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
            hold::Found::Gone => {
                if definition::find_by_id(queue.queue_id)?.is_none() {
                    // The queue was dropped, and what it has left may have been removed before this job said how far it was.
                    checkpoint::remove(&[claimed.id])?;
                }
                return Ok(true);
            }
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
