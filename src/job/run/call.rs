//! One call of a handler for a job.

use crate::errors::Result;
use crate::pg::Datum;

use crate::job::claimed;
use crate::job::current::{Current, Earlier};
use crate::job::words;
use crate::notice::buffer;
use crate::pg::function::Answer;
use crate::pg::handler::{self, Callable};
use crate::pg::insistence;
use crate::pg::memory::Context;
use crate::pg::subtransaction;
use crate::queue::eligibility::HandlerArgument;

/// Calls the handler in a subtransaction, with the argument it takes. It allocates in
/// `memory`; its result as jsonb is copied to `kept`. `accept`, asked last, may refuse what the handler has done.
pub fn call(
    callable: &Callable,
    argument: HandlerArgument,
    current: &Current,
    earlier: &Earlier,
    memory: &Context,
    kept: &Context,
    accept: impl FnOnce() -> Result<()>,
) -> Result<Answer> {
    memory.enter(|| {
        subtransaction::run(|| {
            let argument = match argument {
                HandlerArgument::Nothing => Answer::Null,
                HandlerArgument::Jsonb => current.job.args,
                HandlerArgument::Job => claimed::composite(current, earlier)?,
            };
            let argument = match argument {
                Answer::Datum(datum) => datum,
                Answer::Null => Datum::from(0usize),
            };
            let result = callable.call(argument)?;
            if insistence::was_interrupted() {
                // The handler caught the interrupt and went on: it is out of time all the same, or cancelled.
                return Err(insistence::error());
            }
            words::expect_none_caught()?;
            let result = handler::keep_result(result, kept);
            buffer::expect_share()?;
            accept().map(|()| result)
        })
    })
}
