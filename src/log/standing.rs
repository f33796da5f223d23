//! Whether the log has what a reader's cursor says it has read.

use pushy_core::log::cursor::Cursor;
use pushy_core::log::standing::{CursorStanding, LogExtent};

use super::log_snapshot::LogSnapshot;
use super::state;
use crate::errors::{Error, Result};
use crate::pg::{database, transaction};
use crate::shared;

/// Where the cursor stands; as the extension's owner.
pub fn of(log: &LogSnapshot, cursor: Cursor) -> Result<CursorStanding> {
    let known = |lost: Cursor| LogExtent {
        epoch: log.epoch,
        is_epoch_of_here: is_of_here(log.epoch),
        lost,
        is_in_recovery: transaction::is_in_recovery(),
    };
    let now = known(log.lost);
    if !now.should_have(cursor) {
        return Ok(CursorStanding::Known);
    }
    let last = last_of_tick(log, cursor)?;
    // The part of a tick that is not there may have been emptied since the snapshot was taken, in place or by TRUNCATE.
    let lost = if last.is_none() {
        log.lost_by_now()?
    } else {
        log.lost
    };
    Ok(known(lost).standing(cursor, last))
}

fn is_of_here(epoch: i64) -> bool {
    let database_slot = shared::get().and_then(|shared| shared.find_database(database::current()));
    database_slot.is_some_and(|database_slot| database_slot.log.begun_epoch() == epoch)
}

/// The last event of the cursor's tick, if that is there.
fn last_of_tick(log: &LogSnapshot, cursor: Cursor) -> Result<Option<Cursor>> {
    let tick_of_cursor = (cursor.epoch, cursor.tick);
    let mut parts = log.parts.iter().rev();
    let Some(part) = parts.find(|part| part.first <= tick_of_cursor) else {
        return Ok(None);
    };
    let mut last = None;
    log.each_tick_from(part.part, tick_of_cursor, |tick| {
        last = ((tick.epoch, tick.tick) == tick_of_cursor).then(|| tick.last());
        Ok(false)
    })?;
    Ok(last)
}

/// The place of the newest event that was ever in a tick here.
pub fn newest(log: &LogSnapshot) -> Result<Cursor> {
    let newest = log.newest_tick()?;
    let newest = newest.map_or(log.last, |tick| tick.last());
    Ok(newest.max(log.last).max(log.lost))
}

/// The same of a cursor that a caller wrote in the argument of this name; refuses one that no reader was given.
pub fn of_argument(argument: &str, log: &LogSnapshot, cursor: Cursor) -> Result<CursorStanding> {
    let standing = of(log, cursor)?;
    if standing != CursorStanding::NeverGiven {
        return Ok(standing);
    }
    let newest = newest(log)?;
    let allowed = format!("what pushy.subscription_read answered; the newest is {newest}");
    Err(Error::out_of_range(
        argument,
        format!("\"{cursor}\""),
        &allowed,
    ))
}

/// Whether the log may be short of what readers of an earlier timeline have read, and no tick has said so yet.
pub fn is_timeline_news() -> Result<bool> {
    Ok(state::read()?.timeline != state::timeline())
}
