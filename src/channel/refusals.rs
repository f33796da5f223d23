//! Why a text is no channel, in words.

use super::reading::Reading;
use pushy_core::hidden;

use crate::errors::{Error, SqlState};
use crate::pg::identifier::LIMIT;
use crate::pg::text;

/// Characters of a user's text that a message repeats.
const SHOWN: usize = 100;

const HINT: &str =
    "Write it as after LISTEN; pushy.channel_ident(name) quotes an exact name for that.";

/// LISTEN refuses the text: its SQLSTATE and its reason.
pub fn invalid(text: &[u8], refusal: &Error) -> Error {
    Error::new(
        refusal.sqlstate,
        format!(
            "invalid channel identifier \"{}\": {}",
            shown(text),
            clipped(&refusal.message)
        ),
    )
    .hint(HINT)
}

/// LISTEN would keep the server busy for long, and deaf to a cancel.
pub fn too_complex(text: &[u8]) -> Error {
    Error::new(
        SqlState::STATEMENT_TOO_COMPLEX,
        format!(
            "channel identifier \"{}\" is too complex to read",
            shown(text)
        ),
    )
    .detail("It is longer than 1 MB, or has a long row of operator characters or comments within comments.")
    .hint(HINT)
}

/// LISTEN would cut the name without an error.
pub fn cut(text: &[u8], reading: &Reading) -> Error {
    Error::new(
        SqlState::NAME_TOO_LONG,
        format!(
            "channel identifier \"{}\" is too long: {} bytes, at most {LIMIT}",
            shown(text),
            reading.byte_length
        ),
    )
    .detail(format!(
        "LISTEN would cut it to \"{}\" ({} bytes).",
        shown(&reading.channel),
        reading.channel.len()
    ))
    .hint("Use a shorter name on both sides; pushy.channel_inspect() shows what becomes of it.")
}

/// An exact name that no channel can have.
pub fn too_long(name: &[u8]) -> Error {
    Error::new(
        SqlState::NAME_TOO_LONG,
        format!(
            "channel name \"{}\" is too long: {} bytes, at most {LIMIT}",
            shown(name),
            name.len()
        ),
    )
    .hint("Use a shorter name.")
}

/// A name that nothing is declared on.
pub fn hidden(name: &[u8]) -> Error {
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!(
            "channel name \"{}\" has control characters or invisible ones",
            hidden::shown(&text::shown(name))
        ),
    )
    .hint("Use a name without them; LISTEN and NOTIFY would take it.")
}

/// Readers believe what is said there.
pub fn ours(name: &[u8]) -> Error {
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("channel \"{}\" is Pushy's own", shown(name)),
    )
    .detail("Only Pushy publishes on channels whose names begin with pushy_, and nobody grants them. Everybody may LISTEN and subscribe, but to pushy_gateway, which is for gateways alone.")
    .hint("Use a channel with another name; pushy.watch(table, channel => 'name') gives a table another than its own.")
}

/// Nobody but a gateway reads it.
pub fn private(name: &[u8]) -> Error {
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("channel \"{}\" is for gateways alone", shown(name)),
    )
    .hint("Leave it out: it has nothing but what Pushy says to pushy-gateway.")
}

pub fn empty() -> Error {
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        "channel name \"\" is empty",
    )
    .hint(format!("A channel's name has 1 to {LIMIT} bytes."))
}

pub fn payload_too_long(channel: &[u8], length: usize, limit: usize) -> Error {
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!(
            "payload for channel \"{}\" is too long: {length} bytes, at most {limit}",
            shown(channel)
        ),
    )
    .hint("Send a key and let the listener read the rest.")
}

/// LISTENers do not see it.
pub fn topic_by_notify(topic: &[u8]) -> Error {
    Error::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!(
            "topic \"{}\" does not go with delivery => 'notify'",
            shown(topic)
        ),
    )
    .hint("Topics are in the event log, for subscriptions: leave delivery or topic out.")
}

/// The server's parser and ours disagree: a defect of ours.
pub fn unread(text: &[u8], channel: &[u8]) -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        format!("cannot measure channel identifier \"{}\"", shown(text)),
    )
    .detail(format!("LISTEN makes \"{}\" of it.", shown(channel)))
    .hint("Please report this text as a defect of Pushy.")
}

fn shown(bytes: &[u8]) -> String {
    // In each encoding of the server a character has four bytes at most.
    clipped(&text::shown(text::cut(bytes, 4 * (SHOWN + 1))))
}

fn clipped(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
