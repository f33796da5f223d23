//! subscription_ack.

use pushy_core::log::cursor::Cursor;

use super::table;
use crate::errors::{Error, Result};
use crate::log::{state, tick};
use crate::pg::function::Call;
use crate::pg::{clock, identity, snapshot, transaction};
use crate::sql_function;

sql_function!(pushy_subscription_ack, |call| subscription_ack(call));

fn subscription_ack(call: Call) -> Result<bool> {
    transaction::require_writable(c"pushy.subscription_ack()");
    let name = call.text("name", 0)?;
    let cursor = parse(&call.text("cursor", 1)?)?;
    table::owned(&name, identity::current_user())?;
    identity::as_owner(|| {
        let state = state::read()?;
        let newest = tick::newest(&state, &snapshot::take_latest())?;
        let newest = newest
            .map_or(state.last, |tick| tick.last())
            .max(state.last);
        if cursor > newest {
            return Err(Error::out_of_range(
                "cursor",
                format!("\"{cursor}\""),
                &format!("what pushy.subscription_read answered; the newest is {newest}"),
            ));
        }
        Ok(table::move_to(&name, cursor, Some(clock::now().0)))
    })
}

/// A cursor as it is written.
pub fn parse(text: &str) -> Result<Cursor> {
    text.parse().map_err(|_| {
        Error::out_of_range(
            "cursor",
            format!("\"{text}\""),
            "a cursor that pushy.subscription_read answered, such as 1000000001-12-3",
        )
    })
}
