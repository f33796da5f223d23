//! Words by which a handler says how its attempt is to end: job_snooze, job_discard, job_retry_in.
//!
//! They may be said at any depth of what the handler calls. The last word counts. A snooze is an end without an error, because what
//! was done is kept: it takes effect when the handler returns. The others raise an error, which undoes what was done; who catches it
//! does not take the word back.

use std::cell::{Cell, RefCell};

use crate::errors::{Error, Result, SqlState};
use crate::job::current;
use crate::job::log::{self, Level};
use crate::job::moves::retry_or_discard::Next;
use crate::pg::clock;
use crate::pg::function::Call;
use crate::pg::per_process::PerProcess;
use crate::pg::value::Timestamp;
use crate::sql_function;

/// What a handler has said last.
#[derive(Clone, Debug)]
pub enum Word {
    /// Put off until then.
    Snooze(Timestamp),
    /// The attempt has failed, and this follows. In a box, because few say so and every job answers whether.
    Fail(Box<(Next, Error)>),
}

static IS_OPEN: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));
static IS_SAID: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));
static SAID: PerProcess<RefCell<Option<Word>>> = PerProcess::new(RefCell::new(None));

/// While it lives a handler runs, whose words count: what has been deferred to a commit is no handler any more.
pub struct Listening(());

pub fn listen() -> Listening {
    if IS_SAID.get() {
        forget();
    }
    IS_OPEN.set(true);
    Listening(())
}

impl Drop for Listening {
    fn drop(&mut self) {
        IS_OPEN.set(false);
    }
}

#[cold]
fn forget() {
    IS_SAID.set(false);
    SAID.take();
}

/// The word of the handler that has run, if it has said one; it is said no longer then.
#[inline]
pub fn take() -> Option<Word> {
    if IS_SAID.get() {
        take_said()
    } else {
        None
    }
}

#[cold]
fn take_said() -> Option<Word> {
    IS_SAID.set(false);
    SAID.take()
}

/// The error of a handler that has said so and caught it, and returns as if nothing were: what it did is undone all the same.
#[inline]
pub fn expect_none_caught() -> Result<()> {
    if IS_SAID.get() {
        caught()
    } else {
        Ok(())
    }
}

#[cold]
fn caught() -> Result<()> {
    SAID.with_borrow(|said| match said {
        Some(Word::Fail(said)) => Err(said.1.clone()),
        _ => Ok(()),
    })
}

fn say(function: &str, word: Word) -> Result<()> {
    if !IS_OPEN.get() {
        return Err(log::no_job(function));
    }
    SAID.replace(Some(word));
    IS_SAID.set(true);
    Ok(())
}

sql_function!(pushy_job_snooze_v1, |call| snooze(call));
sql_function!(pushy_job_discard_v1, |call| discard(call));
sql_function!(pushy_job_retry_in_v1, |call| retry_in(call));

fn snooze(call: Call) -> Result<()> {
    let now = clock::now();
    let due = match (call.opt_interval_us("delay", 0)?, call.opt_timestamp(1)) {
        (Some(_), Some(_)) => {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "delay and until are both given",
            )
            .hint("Pass delay for a length of time, or until for a time."))
        }
        (Some(us), None) if us < 0 => return Err(negative(call)),
        (Some(_), None) => call.opt_interval_from("delay", 0, now)?.unwrap_or(now),
        (None, Some(until)) => until,
        (None, None) => return Err(Error::null_argument("delay").hint("Pass delay or until.")),
    };
    if !due.is_finite() {
        return Err(Error::out_of_range(
            "until",
            if due < now { "-infinity" } else { "infinity" },
            "a time that comes, or has come",
        ));
    }
    let reason = call.opt_bytes(2);
    say("job_snooze", Word::Snooze(due))?;
    if let (Some(reason), Some(job)) = (reason, current::id()) {
        log::say(job, Level::Info, &reason);
    }
    Ok(())
}

fn negative(call: Call) -> Error {
    Error::out_of_range("delay", call.shown_interval(0), "an interval of 0 or more")
}

fn discard(call: Call) -> Result<()> {
    let reason = call.opt_text(0)?;
    let reason = reason.unwrap_or_else(|| "the handler has discarded the job".to_owned());
    fail("job_discard", Next::Discard, reason)
}

fn retry_in(call: Call) -> Result<()> {
    let delay = match call.opt_interval_us("delay", 0)? {
        None => return Err(Error::null_argument("delay")),
        Some(us) if us < 0 => return Err(negative(call)),
        Some(us) => us,
    };
    let reason = call.opt_text(1)?;
    let reason = reason.unwrap_or_else(|| "the handler wants to be called again".to_owned());
    fail("job_retry_in", Next::RetryIn(delay), reason)
}

fn fail(function: &str, next: Next, reason: String) -> Result<()> {
    let error = Error::new(SqlState::RAISE_EXCEPTION, reason);
    say(function, Word::Fail(Box::new((next, error.clone()))))?;
    Err(error)
}

/// What follows for the error of a handler that has said so: its next attempt, and the error that is recorded.
pub fn of_failure(word: Option<Word>, error: Error) -> (Error, Option<Next>) {
    match word {
        Some(Word::Fail(said)) if error.sqlstate != SqlState::QUERY_CANCELED => {
            let (next, said) = *said;
            let context = (error.message == said.message)
                .then_some(error.context)
                .flatten();
            (Error { context, ..said }, Some(next))
        }
        _ => (error, None),
    }
}
