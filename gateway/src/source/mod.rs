//! What the gateway asks of the database: a short list, the same from inside and from outside.

pub mod framed;
pub mod memory;
pub mod postgres;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use serde::{Deserialize, Serialize};

use crate::notice::Notice;

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SourceError>> + Send + 'a>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceError {
    /// Cannot be reached now: worth another try.
    Away(String),
    /// Answered with an error.
    Failed(String),
}

impl std::fmt::Display for SourceError {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Away(why) => write!(to, "the database cannot be reached: {why}"),
            Self::Failed(why) => write!(to, "the database refuses: {why}"),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Notice(Arc<Notice>),
    /// Something before this cursor is missing; reading goes on from here.
    Resync(Cursor),
}

/// What comes after a cursor. All from there to `next` is in `events`, or a resync stands before what is missing.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub events: Vec<Event>,
    /// From where to read on; the cursor that was asked for when there is nothing.
    pub next: Cursor,
}

/// Whether these topics of this channel may be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    pub role: String,
    pub subject: Option<String>,
    pub channel: String,
    /// Patterns; none: all of the channel.
    pub topics: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allowed {
        /// The channel's name, as notices have it.
        channel: String,
        /// Nothing before this cursor may be read: what was said before somebody was let in.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        since: Option<String>,
    },
    Refused {
        reason: String,
    },
}

/// What a ticket was for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    /// Who made it.
    pub role: String,
    pub subject: Option<String>,
    pub channels: Vec<String>,
    /// Patterns, with `,` between them; none: all.
    pub topics: Option<String>,
}

impl Redeemed {
    /// Whether a text can be a ticket at all: of others the server is asked nothing.
    pub fn may_be(ticket: &str) -> bool {
        let is_of_ticket = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        !ticket.is_empty() && ticket.bytes().all(is_of_ticket)
    }
}

/// A key as it was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyText {
    pub name: String,
    /// HS256, RS256, ES256, EdDSA; JWKS for a document of several.
    pub algorithm: String,
    /// The secret, a public key in PEM, or the document.
    pub material: String,
    pub kid: Option<String>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// The claim that names the role.
    pub role_claim: Option<String>,
    /// The role of a token that names none.
    pub role: Option<String>,
}

/// A row of pushy.metrics().
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    pub name: String,
    pub help: String,
    /// counter, gauge or histogram.
    pub kind: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// What the database shows of this gateway, in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub sockets: String,
    pub rooms: String,
    /// How many there are, with those that have no room above.
    pub in_all: String,
}

/// Who asks, because what is read for one must not wait for what is read for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    Pump,
    Replay,
}

pub trait Source: Send + Sync + 'static {
    /// The end of the log as it is now.
    fn position(&self) -> Answer<'_, Cursor>;
    /// Whether there is something after this cursor, by the end of that time.
    fn wait(&self, after: Cursor, at_most: Duration) -> Answer<'_, bool>;
    fn read(&self, reader: Reader, after: Cursor, max: u32) -> Answer<'_, Chunk>;
    fn authorize(&self, ask: Ask) -> Answer<'_, Verdict>;
    /// None: there is no such ticket, or it was used, or its time is over.
    fn redeem(&self, ticket: String) -> Answer<'_, Option<Redeemed>>;
    fn keys(&self) -> Answer<'_, Vec<KeyText>>;
    fn metrics(&self) -> Answer<'_, Vec<Metric>>;
    /// For the view `sockets` and the function `presence`: in place of what was said before, as JSON.
    fn report(&self, report: Report) -> Answer<'_, ()>;
}
