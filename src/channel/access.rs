//! Who reads a channel. One that nobody was granted is open; any other is read by its owner and its grantees, and by
//! them only what was written after they were let in.

use std::cell::{Cell, RefCell};

use pushy_core::channel::is_private;
use pushy_core::topic::Patterns;
use rustc_hash::FxHashMap;

use crate::channel::granted::{self, GrantedChannel};
use crate::channel::refusals;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::{identity, text, Oid};

/// What a role reads of a channel: of which topics, and from which place of the WAL on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readable(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// What was written at this place, or later.
    since: i64,
    /// None: all, and what has no topic.
    topics: Option<Patterns>,
}

/// What a reader gets of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Notice,
    /// The reader was let in later: it gets a resync, because something is missing.
    Missed,
    Nothing,
}

impl Readable {
    const NOTHING: Self = Self(Vec::new());

    pub fn everything() -> Self {
        let all = Part {
            since: i64::MIN,
            topics: None,
        };
        Self(vec![all])
    }

    pub fn is_everything(&self) -> bool {
        let is_all = |part: &Part| part.since == i64::MIN && part.topics.is_none();
        self.0.iter().any(is_all)
    }

    /// How many a look for a topic tries.
    pub fn count_patterns(&self) -> usize {
        let of_parts = self.0.iter().filter_map(|part| part.topics.as_ref());
        of_parts.map(Patterns::count).sum()
    }

    fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// What the role gets of an event of this topic that was written at a place of the WAL.
    pub fn share(&self, topic: Option<&[u8]>, position: i64) -> Share {
        let mut share = Share::Nothing;
        for part in &self.0 {
            let is_of_it = match (&part.topics, topic) {
                (None, _) => true,
                (Some(topics), Some(topic)) => topics.match_topic(topic, None),
                (Some(_), None) => false,
            };
            if is_of_it && position >= part.since {
                return Share::Notice;
            }
            if is_of_it {
                share = Share::Missed;
            }
        }
        share
    }
}

/// Where there are more channels with grants, or grants, or bytes of their patterns, a reader of all looks up those that it meets.
const MOST_AT_ONCE: i64 = 1_000;
const MOST_BYTES_AT_ONCE: i64 = 64 * 1024;

/// What a role may read, of any channel.
pub struct ChannelAccess {
    role: Oid,
    /// Of all channels that are not open, or of those met so far.
    answers: RefCell<FxHashMap<Vec<u8>, Readable>>,
    knows_all: bool,
    /// Channels that were looked up one by one.
    looked_up: Cell<usize>,
}

impl ChannelAccess {
    /// As of now.
    pub fn of(role: Oid) -> Result<Self> {
        let owned = identity::as_owner(|| {
            if granted::are_more_than(MOST_AT_ONCE, MOST_BYTES_AT_ONCE) {
                return Ok(None);
            }
            granted::all().map(Some)
        })?;
        let knows_all = owned.is_some();
        let heard = owned.into_iter().flatten().map(|owned| {
            let readable = owned.heard_by(role);
            (owned.channel, readable)
        });
        Ok(Self {
            role,
            answers: RefCell::new(heard.collect()),
            knows_all,
            looked_up: Cell::new(0),
        })
    }

    /// Whether there is no channel of which the role reads but a part.
    pub fn hears_all(&self) -> bool {
        let answers = self.answers.borrow();
        self.knows_all && answers.values().all(Readable::is_everything)
    }

    /// How many channels were looked up since somebody took their number.
    pub fn take_looked_up(&self) -> usize {
        self.looked_up.take()
    }

    /// What the role gets of an event of this channel, as `share` says of what it may read there.
    pub fn share(&self, channel: &[u8], share: impl Fn(&Readable) -> Share) -> Result<Share> {
        if let Some(readable) = self.answers.borrow().get(channel) {
            return Ok(share(readable));
        }
        if self.knows_all {
            return Ok(Share::Notice);
        }
        self.looked_up.set(self.looked_up.get() + 1);
        let owned = identity::as_owner(|| granted::of(&[channel.to_vec()]))?;
        let readable = owned
            .first()
            .map_or_else(Readable::everything, |owned| owned.heard_by(self.role));
        let share = share(&readable);
        let mut answers = self.answers.borrow_mut();
        answers.insert(channel.to_vec(), readable);
        Ok(share)
    }
}

/// Whose the channel is, in words, if this role may read nothing of it.
pub fn closed_by(channel: &[u8], role: Oid) -> Result<Option<String>> {
    let owned = identity::as_owner(|| granted::of(&[channel.to_vec()]))?;
    let closed = owned
        .first()
        .filter(|owned| owned.heard_by(role).is_nothing());
    Ok(closed.map(|owned| {
        owned.shown_owner().map_or_else(
            || "a role that is gone".to_owned(),
            |owner| format!("role \"{owner}\""),
        )
    }))
}

/// What a role reads of each of these channels; an error that names one of which it may read nothing at all.
pub fn require(channels: &[Vec<u8>], role: Oid) -> Result<Vec<Readable>> {
    let owned = identity::as_owner(|| granted::of(channels))?;
    channels
        .iter()
        .map(|channel| {
            if is_private(channel) {
                return Err(refusals::private(channel));
            }
            let Some(owned) = owned.iter().find(|owned| owned.channel == *channel) else {
                return Ok(Readable::everything());
            };
            let readable = owned.heard_by(role);
            if readable.is_nothing() {
                return Err(denied(owned, role));
            }
            Ok(readable)
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
    fn heard_by(&self, role: Oid) -> Readable {
        if self.is_owned_by(role) {
            return Readable::everything();
        }
        let mut readable = Readable::NOTHING;
        // Places of another cluster's WAL say nothing here, and its log is not here either.
        let has_places = self.is_of_this_cluster() || self.is_loaded();
        for grant in &self.grants {
            let is_to_role = grant.is_to_all()
                || (self.is_home() && identity::has_rights_of(role, grant.grantee));
            // Before its patterns are read, because a channel may be granted to every role there is.
            if !is_to_role {
                continue;
            }
            // A role is nobody's subject: what is granted to {sub} is for whom the gateway lets in.
            let topics = grant.patterns().map(Patterns::of_no_subject);
            if let None | Some(Some(_)) = topics {
                readable.0.push(Part {
                    since: if has_places { grant.since } else { i64::MIN },
                    topics: topics.flatten(),
                });
            }
        }
        readable
    }
}
