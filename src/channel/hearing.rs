//! Who reads a channel. One that nobody was granted is open; any other is read by its owner and its grantees, and by
//! them only what was written after they were let in.

use rustc_hash::FxHashMap;

use super::owned::{self, Owned};
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::{identity, text, Oid};

/// From which place of the WAL on a role reads a channel: what was written at it, or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct From(i64);

impl From {
    const THE_BEGINNING: Self = Self(i64::MIN);
    const NEVER: Self = Self(i64::MAX);

    pub fn reads(self, position: i64) -> bool {
        self != Self::NEVER && position >= self.0
    }
}

/// What a role may read, of channels that are not open.
pub struct Hearing(FxHashMap<Vec<u8>, From>);

impl Hearing {
    /// Of all channels, as of now.
    pub fn of(role: Oid) -> Result<Self> {
        let owned = identity::as_owner(owned::all)?;
        let heard = owned
            .into_iter()
            .map(|owned| (owned.channel.clone(), owned.heard_by(role)));
        Ok(Self(heard.collect()))
    }

    pub fn from(&self, channel: &[u8]) -> From {
        self.0.get(channel).copied().unwrap_or(From::THE_BEGINNING)
    }
}

/// From where on a role reads each of these channels; an error that names one that it may not read at all.
pub fn require(channels: &[Vec<u8>], role: Oid) -> Result<Vec<From>> {
    let owned = identity::as_owner(|| owned::of(channels))?;
    channels
        .iter()
        .map(|channel| {
            let Some(owned) = owned.iter().find(|owned| owned.channel == *channel) else {
                return Ok(From::THE_BEGINNING);
            };
            match owned.heard_by(role) {
                From::NEVER => Err(denied(owned, role)),
                from => Ok(from),
            }
        })
        .collect()
}

fn denied(owned: &Owned, role: Oid) -> Error {
    let channel = super::Channel::shown_ident(&owned.channel);
    let name = identity::role(role).map(|role| role.name);
    let hint = match &name {
        Some(name) => format!(
            "Its owner, role \"{}\", can run: SELECT pushy.channel_grant({}, {})",
            owned.owner_name,
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

impl Owned {
    fn heard_by(&self, role: Oid) -> From {
        if self.is_owned_by(role) {
            return From::THE_BEGINNING;
        }
        let grants = self.grants.iter().filter(|grant| {
            grant.is_to_all() || (self.is_home() && identity::has_rights_of(role, grant.grantee))
        });
        let first = grants.map(|grant| grant.since).min();
        first.map_or(From::NEVER, |since| {
            // Places of another cluster's WAL say nothing here, and its log is not here either.
            if self.is_of_this_cluster() {
                From(since)
            } else {
                From::THE_BEGINNING
            }
        })
    }
}
