//! One job: its handler in a subtransaction, under a deadline, with nothing left over for the next.

use crate::errors::{Error, Result, SqlState};
use crate::job::call;
use crate::job::current::{self, Current};
use crate::pg::function::{shown_length, Answer};
use crate::pg::handler::Callable;
use crate::pg::memory::Context;
use crate::pg::value::Timestamp;
use crate::pg::{clock, guc, insistence, interrupts, session, transaction};
use crate::queue::eligibility::HandlerArgument;
use crate::settings;

/// How a job ended.
pub struct HandlerOutcome {
    /// The result as jsonb, kept in the batch's memory.
    pub result: Result<Answer>,
    /// It failed, and its deadline had passed.
    pub timed_out: bool,
}

/// Runs a job in this transaction. `timeout_us`: 0 for none. `batch`: memory for the result. `accept` is asked last.
#[allow(clippy::too_many_arguments)]
pub fn run(
    callable: &Callable,
    argument: HandlerArgument,
    current: &Current,
    last_error: Option<&str>,
    timeout_us: i64,
    memory: &Context,
    batch: &Context,
    accept: impl FnOnce() -> Result<()>,
) -> HandlerOutcome {
    memory.reset();
    clock::start_statement();
    // Outside of the subtransaction's own level, so that what the handler SETs is undone with it.
    let settings = guc::nest();
    current::enter(current.clone());
    let run = insistence::begin(timeout_us, clock::statement_start());
    let result = call::call(
        callable, argument, current, last_error, memory, batch, accept,
    );
    let timed_out = result.is_err() && run.is_over_time();
    drop(run);
    let _held = interrupts::hold_cancels();
    current::leave();
    settings.undo();
    session::clean_between_jobs();
    HandlerOutcome { result, timed_out }
}

/// Runs what the jobs of this transaction have deferred to its end, constraints above all: COMMIT finds
/// nothing left to run. Raises its errors, and answers one if it went on when told to stop. `timeout_us`: 0 for none.
pub fn run_deferred(timeout_us: i64, current: Option<Current>) -> Result<()> {
    let settings = guc::nest();
    let run = insistence::begin(timeout_us, clock::now());
    match current {
        Some(current) => current::during(current, transaction::run_deferred),
        None => transaction::run_deferred(),
    }
    let went_on = insistence::was_interrupted();
    drop(run);
    let _held = interrupts::hold_cancels();
    settings.undo();
    session::clean_between_jobs();
    if went_on {
        Err(insistence::error())
    } else {
        Ok(())
    }
}

/// The error of a job that ran into its deadline.
pub fn timeout_error(timeout_us: i64, started_at: Timestamp, now: Timestamp) -> Error {
    const MS_US: u64 = 1000;
    let hint = if timeout_us == settings::max_job_timeout_us() {
        "pushy.max_job_timeout, which a superuser can raise, lets no job run longer."
    } else {
        "Raise the queue's timeout with pushy.queue_alter, or pass timeout to pushy.enqueue."
    };
    let ran_for = (now.since_us(started_at) / MS_US * MS_US) as i64;
    Error::new(
        SqlState::QUERY_CANCELED,
        format!(
            "the job was stopped after {}: its timeout is {}",
            shown_length(ran_for),
            shown_length(timeout_us)
        ),
    )
    .hint(hint)
}
