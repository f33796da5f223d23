//! One job: its handler in a subtransaction, under a deadline, with nothing left over for the next.

use crate::errors::{Error, Result, SqlState};
use crate::job::call;
use crate::job::current::{self, Current, Earlier};
use crate::job::words::{self, Word};
use crate::notice::buffer;
use crate::pg::function::Answer;
use crate::pg::handler::Callable;
use crate::pg::memory::Context;
use crate::pg::procedure::{self, Argument};
use crate::pg::value::interval::shown_length;
use crate::pg::value::Timestamp;
use crate::pg::{clock, guc, insistence, interrupts, session, transaction, Oid};
use crate::queue::eligibility::HandlerArgument;
use crate::settings;

/// How a job ended.
pub struct HandlerOutcome {
    /// The result as jsonb, kept in the batch's memory.
    pub result: Result<Answer>,
    /// It failed, and its deadline had passed.
    pub timed_out: bool,
    /// What it has said of its end.
    pub word: Option<Word>,
}

/// Runs a job in this transaction. `timeout_us`: 0 for none. `batch`: memory for the result. `accept` is asked last.
#[allow(clippy::too_many_arguments)]
pub fn run(
    callable: &Callable,
    argument: HandlerArgument,
    current: &Current,
    earlier: &Earlier,
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
    let listening = words::listen();
    let result = call::call(callable, argument, current, earlier, memory, batch, accept);
    drop(listening);
    let timed_out = result.is_err() && run.is_over_time();
    drop(run);
    let _held = interrupts::hold_cancels();
    current::leave();
    settings.undo();
    session::clean_between_jobs();
    HandlerOutcome {
        result,
        timed_out,
        word: words::take(),
    }
}

/// CALLs a procedure for a job, in transactions of its own: none is open before it, and none after it.
#[cold]
pub fn run_procedure(
    procedure: Oid,
    argument: Option<Argument>,
    current: &Current,
    timeout_us: i64,
    memory: &Context,
) -> HandlerOutcome {
    memory.reset();
    clock::start_statement();
    current::enter(current.clone());
    let run = insistence::begin(timeout_us, clock::statement_start());
    let listening = words::listen();
    let result = procedure::call(procedure, argument, memory, || {
        if insistence::was_interrupted() {
            return Err(insistence::error());
        }
        words::expect_none_caught()?;
        buffer::expect_share()
    });
    let timed_out = result.is_err() && run.is_over_time();
    drop(listening);
    drop(run);
    let _held = interrupts::hold_cancels();
    if result.is_err() {
        transaction::abort();
    }
    current::leave();
    HandlerOutcome {
        result: result.map(|()| Answer::Null),
        timed_out,
        word: words::take(),
    }
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
