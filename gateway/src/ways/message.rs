//! The messages, as docs/gateway-protocol.md has them.

use std::fmt::Write as _;
use std::sync::Arc;

use pushy_core::log::cursor::Cursor;
use serde::Deserialize;
use serde_json::json;

use crate::clock;
use crate::hub::outbox::{Item, Tag};
use crate::ways::close::Close;

/// From a client, on a socket.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Incoming {
    Subscribe {
        id: Tag,
        channel: String,
        #[serde(default)]
        topics: Vec<String>,
        after: Option<String>,
        #[serde(default)]
        latest: bool,
        #[serde(default)]
        presence: bool,
    },
    Unsubscribe {
        id: Tag,
    },
    Auth {
        token: Option<String>,
        ticket: Option<String>,
    },
    Ping {
        id: Option<u64>,
    },
}

/// Why something was refused: a word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub message: String,
}

macro_rules! codes {
    ($($name:ident $word:literal $status:literal;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Code { $($name),* }

        impl Code {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }

            /// Where the answer is one of HTTP.
            pub const fn status(self) -> u16 {
                match self { $(Self::$name => $status),* }
            }
        }
    };
}

codes! {
    BadMessage "bad_message" 400;
    BadChannel "bad_channel" 400;
    BadTopic "bad_topic" 400;
    BadCursor "bad_cursor" 400;
    Taken "taken" 400;
    TooMany "too_many" 429;
    TooFast "too_fast" 429;
    Unauthenticated "unauthenticated" 401;
    Denied "denied" 403;
    Origin "origin" 403;
    Host "host" 421;
    OtherSubject "other_subject" 403;
    NoPresence "no_presence" 400;
    Unavailable "unavailable" 503;
}

impl Code {
    pub fn because(self, message: impl Into<String>) -> Refusal {
        Refusal {
            code: self,
            message: message.into(),
        }
    }
}

pub fn error(id: Option<Tag>, refusal: &Refusal) -> Arc<str> {
    let mut said =
        json!({"type": "error", "code": refusal.code.word(), "message": refusal.message});
    if let (Some(id), Some(said)) = (id, said.as_object_mut()) {
        said.insert("id".to_owned(), id.into());
    }
    said.to_string().into()
}

pub fn subscribed(id: Tag, channel: &str, cursor: Cursor, is_live: bool) -> Arc<str> {
    json!({"type": "subscribed", "id": id, "channel": channel, "cursor": cursor.shown(), "live": is_live}).to_string().into()
}

pub fn live(id: Tag) -> Arc<str> {
    json!({"type": "live", "id": id}).to_string().into()
}

pub fn unsubscribed(id: Tag) -> Arc<str> {
    json!({"type": "unsubscribed", "id": id}).to_string().into()
}

pub fn authenticated(until_s: i64) -> Arc<str> {
    json!({"type": "authenticated", "until": clock::iso(until_s.saturating_mul(1_000_000))})
        .to_string()
        .into()
}

pub fn pong(id: Option<u64>) -> Arc<str> {
    let said = match id {
        Some(id) => json!({"type": "pong", "id": id}),
        None => json!({"type": "pong"}),
    };
    said.to_string().into()
}

pub fn expiring(until_s: i64) -> String {
    json!({"type": "expiring", "until": clock::iso(until_s.saturating_mul(1_000_000))}).to_string()
}

pub fn position(cursor: Cursor) -> String {
    json!({"type": "position", "cursor": cursor.shown()}).to_string()
}

/// As a socket writes it.
pub fn frame(item: &Item) -> String {
    match item {
        Item::Message(text) => text.to_string(),
        Item::Resync { tag, cursor } => {
            json!({"type": "resync", "id": tag, "cursor": cursor.shown()}).to_string()
        }
        Item::Notice { notice, tag, more } => {
            let members = notice.members();
            let mut text = String::with_capacity(members.len() + 48);
            // Writing to a String does not fail.
            let _ = write!(text, r#"{{"type":"notice","ids":[{tag}"#);
            for tag in more {
                let _ = write!(text, ",{tag}");
            }
            text.push_str("],");
            text.push_str(std::str::from_utf8(members).unwrap_or_default());
            text.push('}');
            text
        }
    }
}

/// As a stream writes what is no notice: the kind is the event's name. Where it says from where on nothing is missed, that is its id:
/// a browser that comes back before the first notice says it.
pub fn event(text: &str, id: Option<Cursor>) -> String {
    let said = serde_json::from_str::<serde_json::Value>(text).unwrap_or_default();
    let word = |member: &str| said.get(member).and_then(serde_json::Value::as_str);
    let kind = word("type").unwrap_or("message");
    let begins = word("cursor").filter(|_| kind == "subscribed");
    let id = id
        .map(Cursor::shown)
        .or(begins.map(str::to_owned))
        .map(|id| format!("id: {id}\n"))
        .unwrap_or_default();
    format!("{id}event: {kind}\ndata: {text}\n\n")
}

pub fn close_event(close: &Close) -> String {
    let retry = close
        .retry_ms
        .map(|retry_ms| format!("retry: {}\n", retry_ms.max(1_000)))
        .unwrap_or_default();
    let data = json!({"type": "close", "code": close.code, "said": serde_json::from_str::<serde_json::Value>(&close.json()).unwrap_or_default()});
    let id = close
        .cursor
        .map(|cursor| format!("id: {}\n", cursor.shown()))
        .unwrap_or_default();
    format!("{id}{retry}event: close\ndata: {data}\n\n")
}
