//! Where a new reader begins: what the caller says, and the cursor that it means.

use pushy_core::log::cursor::Cursor;

use super::arguments;
use crate::errors::{Error, Result, SqlState};
use crate::log::log_snapshot::LogSnapshot;

/// Where a new reader begins.
#[derive(Clone, Copy)]
pub(super) enum From {
    Now,
    Oldest,
    After(Cursor),
}

pub(super) fn read_from(from_oldest: bool, after: Option<&str>) -> Result<From> {
    match (from_oldest, after) {
        (false, None) => Ok(From::Now),
        (true, None) => Ok(From::Oldest),
        (false, Some(after)) => arguments::cursor("after", after).map(From::After),
        (true, Some(after)) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("from_oldest and after => '{after}' are both given"),
        )
        .hint("A new subscription begins with the oldest notice, or behind a cursor: leave one of them out.")),
    }
}

/// Where a new reader stands: behind the newest event in a tick, before the oldest, or where it says.
pub(super) fn start(from: From) -> Result<Cursor> {
    let log = LogSnapshot::take()?;
    match from {
        From::After(cursor) => arguments::start_after(cursor),
        From::Oldest => Ok(log.lost),
        From::Now => {
            let newest = log.newest_tick()?;
            Ok(newest.map_or(log.last, |tick| tick.last().max(log.last)))
        }
    }
}
