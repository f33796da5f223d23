//! Who reads a channel. One that nobody was granted is open; any other is read by its owner and its grantees, and by
//! them only what was written after they were let in.

use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::channel::granted::{self, GrantedChannel};
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::{identity, text, Oid};

/// From which place of the WAL on a role reads a channel: what was written at it, or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadableFrom(i64);

impl ReadableFrom {
    pub const THE_BEGINNING: Self = Self(i64::MIN);
    const NEVER: Self = Self(i64::MAX);

    pub fn reads(self, position: i64) -> bool {
        self != Self::NEVER && position >= self.0
    }

    /// Whether the role is let in by now and was not at that place of the WAL.
    pub fn came_after(self, position: i64) -> bool {
        self != Self::NEVER && position < self.0
    }
}

/// Where there are more channels with grants, or grants, a reader of all looks up those that it meets.
const MOST_AT_ONCE: i64 = 1_000;

/// What a role may read, of any channel.
pub struct ChannelAccess {
    role: Oid,
    /// Of all channels that are not open, or of those met so far.
    answers: RefCell<FxHashMap<Vec<u8>, ReadableFrom>>,
    knows_all: bool,
}

impl ChannelAccess {
    /// As of now.
    pub fn of(role: Oid) -> Result<Self> {
        let owned = identity::as_owner(|| {
            if granted::are_more_than(MOST_AT_ONCE) {
                return Ok(None);
            }
            granted::all().map(Some)
        })?;
        let knows_all = owned.is_some();
        let heard = owned.into_iter().flatten().map(|owned| {
            let from = owned.heard_by(role);
            (owned.channel, from)
        });
        Ok(Self {
            role,
            answers: RefCell::new(heard.collect()),
            knows_all,
        })
    }

    /// Whether there is no channel of which the role reads but a part.
    pub fn hears_all(&self) -> bool {
        let answers = self.answers.borrow();
        self.knows_all
            && answers
                .values()
                .all(|from| *from == ReadableFrom::THE_BEGINNING)
    }

    pub fn from(&self, channel: &[u8]) -> Result<ReadableFrom> {
        if let Some(from) = self.answers.borrow().get(channel) {
            return Ok(*from);
        }
        if self.knows_all {
            return Ok(ReadableFrom::THE_BEGINNING);
        }
        let owned = identity::as_owner(|| granted::of(&[channel.to_vec()]))?;
        let from = owned.first().map_or(ReadableFrom::THE_BEGINNING, |owned| {
            owned.heard_by(self.role)
        });
        self.answers.borrow_mut().insert(channel.to_vec(), from);
        Ok(from)
    }
}

/// Whose the channel is, in words, if this role may read nothing of it.
pub fn closed_by(channel: &[u8], role: Oid) -> Result<Option<String>> {
    let owned = identity::as_owner(|| granted::of(&[channel.to_vec()]))?;
    let closed = owned
        .first()
        .filter(|owned| owned.heard_by(role) == ReadableFrom::NEVER);
    Ok(closed.map(|owned| {
        owned.shown_owner().map_or_else(
            || "a role that is gone".to_owned(),
            |owner| format!("role \"{owner}\""),
        )
    }))
}

/// From where on a role reads each of these channels; an error that names one that it may not read at all.
pub fn require(channels: &[Vec<u8>], role: Oid) -> Result<Vec<ReadableFrom>> {
    let owned = identity::as_owner(|| granted::of(channels))?;
    channels
        .iter()
        .map(|channel| {
            let Some(owned) = owned.iter().find(|owned| owned.channel == *channel) else {
                return Ok(ReadableFrom::THE_BEGINNING);
            };
            match owned.heard_by(role) {
                ReadableFrom::NEVER => Err(denied(owned, role)),
                from => Ok(from),
            }
        })
        .collect()
}

fn denied(owned: &GrantedChannel, role: Oid) -> Error {
    let channel = crate::channel::Channel::shown_ident(&owned.channel);
    let name = identity::role(role).map(|role| role.name);
    let hint = match &name {
        Some(name) => format!(
            "{} can run: SELECT pushy.channel_grant({}, {})",
            owned.shown_owner().map_or_else(
                || "Its owner is gone; a superuser".to_owned(),
                |owner| format!("Its owner, role \"{owner}\",")
            ),
            quote_literal(&channel),
            quote_literal(name)
        ),
        None => "The role that was to read it was dropped.".to_owned(),
    };
    Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "permission denied for channel \"{}\"",
            text::shown(&owned.channel)
        ),
    )
    .hint(hint)
}

impl GrantedChannel {
    fn heard_by(&self, role: Oid) -> ReadableFrom {
        if self.is_owned_by(role) {
            return ReadableFrom::THE_BEGINNING;
        }
        let grants = self.grants.iter().filter(|grant| {
            grant.is_to_all() || (self.is_home() && identity::has_rights_of(role, grant.grantee))
        });
        let first = grants.map(|grant| grant.since).min();
        first.map_or(ReadableFrom::NEVER, |since| {
            // Places of another cluster's WAL say nothing here, and its log is not here either.
            if self.is_of_this_cluster() || self.is_loaded() {
                ReadableFrom(since)
            } else {
                ReadableFrom::THE_BEGINNING
            }
        })
    }
}
