//! subscription_ack.

use pushy_core::log::cursor::Cursor;

use super::table;
use crate::errors::{Error, Result};
use crate::log::log_snapshot::LogSnapshot;
use crate::pg::function::Call;
use crate::pg::{clock, identity, transaction};
use crate::sql_function;

sql_function!(pushy_subscription_ack_v1, |call| subscription_ack(call));

fn subscription_ack(call: Call) -> Result<bool> {
    transaction::require_writable(c"pushy.subscription_ack()");
    let name = call.text("name", 0)?;
    let cursor = parse("cursor", &call.text("cursor", 1)?)?;
    let subscription = table::owned(&name, identity::current_user())?;
    identity::as_owner(|| {
        let log = LogSnapshot::take()?;
        if !cursor.is_of_log(log.born) {
            return Err(Error::out_of_range(
                "cursor",
                format!("\"{cursor}\""),
                "one of this event log: the cursor is of the log before a restore, or of another database; read the tables anew, and go on with what pushy.subscription_read answers",
            ));
        }
        let newest = log.newest_tick()?;
        let newest = newest.map_or(log.last, |tick| tick.last()).max(log.last);
        if cursor > newest || is_beyond_its_tick(&log, cursor)? {
            return Err(Error::out_of_range(
                "cursor",
                format!("\"{cursor}\""),
                &format!("what pushy.subscription_read answered; the newest is {newest}"),
            ));
        }
        Ok(table::move_to(&subscription, cursor, Some(clock::now().0)))
    })
}

/// Whether the cursor's tick is there and has fewer events: no reader was ever given such a cursor, and only by chance would
/// it pass over nothing. A cursor whose tick was emptied, or lost in a crash, may have been given out.
fn is_beyond_its_tick(log: &LogSnapshot, cursor: Cursor) -> Result<bool> {
    let tick_of_cursor = (cursor.epoch, cursor.tick);
    for part in &log.parts {
        let mut found = None;
        log.each_tick_from(part.part, tick_of_cursor, |tick| {
            found = ((tick.epoch, tick.tick) == tick_of_cursor).then(|| tick.last());
            Ok(false)
        })?;
        if let Some(last) = found {
            return Ok(cursor > last);
        }
    }
    Ok(false)
}

/// A cursor as it is written in the argument of this name.
pub fn parse(argument: &str, text: &str) -> Result<Cursor> {
    text.parse().map_err(|_| {
        Error::out_of_range(
            argument,
            format!("\"{text}\""),
            "a cursor that pushy.subscription_read answered, such as 1000000001-12-3",
        )
    })
}
