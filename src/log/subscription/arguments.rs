//! What the arguments of subscriptions, and of those who read the log without one, have in common.

use std::collections::HashSet;

use pushy_core::log::cursor::Cursor;

use crate::channel::Channel;
use crate::errors::{Error, Result};
use crate::log::log_snapshot::LogSnapshot;
use crate::log::standing;
use crate::pg::array;
use crate::pg::function::Call;

/// Channels of one subscription: its row is read with each look, by the relay too if it feeds a queue.
const MOST_CHANNELS: usize = 1_000;

/// Exact names of channels written as after LISTEN.
pub fn channels(call: Call, index: usize) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(array) = call.datum(index) else {
        return Ok(None);
    };
    let identifiers = array::text_bytes(array);
    if identifiers.len() > MOST_CHANNELS {
        return Err(Error::out_of_range(
            "channels",
            format!("an array of {}", identifiers.len()),
            &format!("{MOST_CHANNELS} channels at most; leave it out for all, or create several subscriptions"),
        ));
    }
    // Each once, wherever it stands.
    let mut met = HashSet::new();
    let channels: Vec<Vec<u8>> = identifiers
        .enumerate()
        .map(|(at, element)| {
            let identifier =
                element.ok_or_else(|| Error::null_argument(&format!("channels[{}]", at + 1)))?;
            Ok(Channel::declared(&identifier)?.into_bytes())
        })
        .filter(|channel| !matches!(channel, Ok(channel) if !met.insert(channel.clone())))
        .collect::<Result<_>>()?;
    if channels.is_empty() {
        return Err(Error::out_of_range(
            "channels",
            "an empty array",
            "one channel or more, written as after LISTEN; leave it out for all",
        ));
    }
    Ok(Some(channels))
}

/// A cursor as it is written in the argument of this name.
pub fn cursor(argument: &str, text: &str) -> Result<Cursor> {
    text.parse().map_err(|_| {
        Error::out_of_range(
            argument,
            format!("\"{text}\""),
            "a cursor that pushy.subscription_read or pushy.log_position answered, such as 0001000000001-000000000012-000003",
        )
    })
}

/// Where a reader goes on who says that it has read up to this cursor. One of the log before a restore, or of another database, is
/// nowhere here: its reader gets a resync. As the extension's owner.
pub fn start_after(cursor: Cursor) -> Result<Cursor> {
    let log = LogSnapshot::take()?;
    if !cursor.is_of_log(log.born) {
        return Ok(Cursor::NOWHERE);
    }
    standing::of_argument("after", &log, cursor)?;
    Ok(cursor)
}
