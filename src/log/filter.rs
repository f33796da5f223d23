//! Which notices of the log a reader gets: of which channels, and from where on it may read each.

use rustc_hash::FxHashMap;

use super::tick::channel_bit;
use crate::channel::access::{self, ChannelAccess, ReadableFrom};
use crate::errors::Result;
use crate::pg::Oid;

/// Which notices a reader gets.
pub struct Filter {
    wanted: Wanted,
    bits: i64,
}

enum Wanted {
    /// For the relay, which emits to LISTENers.
    Everything,
    /// Of any channel, as far as the reader may hear it.
    Heard(ChannelAccess),
    /// Of these channels, each from a place on; looked up by hash, because a reader may want a thousand.
    Channels(FxHashMap<Vec<u8>, ReadableFrom>),
}

impl Filter {
    pub const ALL: Self = Self {
        wanted: Wanted::Everything,
        bits: -1,
    };

    /// What a role reads of these channels, or of all, as grants stand now; an error when it may not read one that it names.
    pub fn of(channels: Option<&[Vec<u8>]>, reader: Oid) -> Result<Self> {
        let Some(channels) = channels else {
            return Ok(Self {
                wanted: Wanted::Heard(ChannelAccess::of(reader)?),
                bits: -1,
            });
        };
        let from = access::require(channels, reader)?;
        let bits = channels.iter().map(|channel| channel_bit(channel));
        Ok(Self {
            bits: bits.fold(0, |all, bit| all | bit),
            wanted: Wanted::Channels(channels.iter().cloned().zip(from).collect()),
        })
    }

    /// What these channels have, or all, whoever reads them: to count, not to read.
    pub fn of_anybody(channels: Option<&[Vec<u8>]>) -> Self {
        let Some(channels) = channels else {
            return Self::ALL;
        };
        let bits = channels.iter().map(|channel| channel_bit(channel));
        let all = |channel: &Vec<u8>| (channel.clone(), ReadableFrom::THE_BEGINNING);
        Self {
            bits: bits.fold(0, |all, bit| all | bit),
            wanted: Wanted::Channels(channels.iter().map(all).collect()),
        }
    }

    /// Whether a tick with these bits of channels may have something for the reader.
    pub fn may_want(&self, channels: i64) -> bool {
        channels & self.bits != 0
    }

    /// Whether the reader gets all that is in a tick.
    pub fn wants_all(&self) -> bool {
        match &self.wanted {
            Wanted::Everything => true,
            Wanted::Heard(hearing) => hearing.hears_all(),
            Wanted::Channels(_) => false,
        }
    }

    /// What the reader gets of what was written to this channel at a place of the WAL.
    pub fn share(&self, channel: &[u8], position: i64) -> Result<Share> {
        let from = match &self.wanted {
            Wanted::Everything => ReadableFrom::THE_BEGINNING,
            Wanted::Heard(hearing) => hearing.from(channel)?,
            Wanted::Channels(channels) => match channels.get(channel) {
                Some(from) => *from,
                None => return Ok(Share::Nothing),
            },
        };
        Ok(if from.reads(position) {
            Share::Notice
        } else if from.came_after(position) {
            Share::Missed
        } else {
            Share::Nothing
        })
    }
}

/// What a reader gets of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    Notice,
    /// The reader was let into the channel later: it gets a resync, because something is missing.
    Missed,
    Nothing,
}
