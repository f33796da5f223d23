//! Which notices of the log a reader gets: of which channels and topics, and from where on it may read each.

use std::cell::Cell;

use pushy_core::channel::{is_private, GATEWAY};
use pushy_core::topic::Patterns;
use rustc_hash::FxHashMap;

use super::tick::channel_bit;
pub use crate::channel::access::Share;
use crate::channel::access::{self, ChannelAccess, Readable};
use crate::errors::Result;
use crate::pg::Oid;

/// Patterns whose looks cost as much as an event costs to read: one of 16 levels takes some 50 ns.
const PATTERNS_A_STEP: usize = 20;
/// What a channel that is looked up costs: a query, some 50 µs.
const STEPS_A_CHANNEL: usize = 50;

/// Which notices a reader gets.
pub struct Filter {
    wanted: Wanted,
    bits: i64,
    /// None: of all topics, and of none.
    topics: Option<Patterns>,
    /// Whether it gets what is for gateways alone.
    is_gateways: bool,
    /// Patterns that were tried since somebody took their number.
    tried: Cell<usize>,
}

enum Wanted {
    /// For the relay, which emits to LISTENers, and for gateways.
    Everything,
    /// Of any channel, as far as the reader may hear it.
    Heard(ChannelAccess),
    /// Of these channels, each as far as the reader may; looked up by hash, because a reader may want a thousand.
    Channels(FxHashMap<Vec<u8>, Readable>),
}

/// The channels and topics that a reader names; None: all.
#[derive(Clone, Copy)]
pub struct Chosen<'a> {
    /// Exact names.
    pub channels: Option<&'a [Vec<u8>]>,
    /// Patterns, as they are written.
    pub topics: Option<&'a [Vec<u8>]>,
}

impl Chosen<'_> {
    fn patterns(&self) -> Option<Patterns> {
        let topics = self.topics?;
        Some(Patterns::kept(topics.iter().map(Vec::as_slice)))
    }

    fn bits(&self) -> i64 {
        let Some(channels) = self.channels else {
            return -1;
        };
        let bits = channels.iter().map(|channel| channel_bit(channel));
        bits.fold(0, |all, bit| all | bit)
    }
}

impl Filter {
    /// Of everything.
    pub fn all() -> Self {
        Self {
            wanted: Wanted::Everything,
            bits: -1,
            topics: None,
            is_gateways: false,
            tried: Cell::new(0),
        }
    }

    /// What a role reads of these, as grants stand now; an error when it may not read a channel that it names.
    pub fn of(chosen: Chosen<'_>, reader: Oid) -> Result<Self> {
        let wanted = match chosen.channels {
            None => Wanted::Heard(ChannelAccess::of(reader)?),
            Some(channels) => {
                let readable = access::require(channels, reader)?;
                Wanted::Channels(channels.iter().cloned().zip(readable).collect())
            }
        };
        Ok(Self {
            wanted,
            bits: chosen.bits(),
            topics: chosen.patterns(),
            is_gateways: false,
            tried: Cell::new(0),
        })
    }

    /// What a gateway reads of these: of any channel, and what is for gateways alone.
    pub fn of_gateway(chosen: Chosen<'_>) -> Self {
        Self {
            is_gateways: true,
            ..Self::of_anybody(chosen)
        }
    }

    /// What there is of these, whoever reads it: to count.
    pub fn of_anybody(chosen: Chosen<'_>) -> Self {
        let all = |channel: &Vec<u8>| (channel.clone(), Readable::everything());
        let wanted = match chosen.channels {
            None => Wanted::Everything,
            Some(channels) => Wanted::Channels(channels.iter().map(all).collect()),
        };
        Self {
            wanted,
            bits: chosen.bits(),
            topics: chosen.patterns(),
            is_gateways: false,
            tried: Cell::new(0),
        }
    }

    /// Whether a tick with these bits of channels may have something for the reader.
    pub fn may_want(&self, channels: i64) -> bool {
        channels & self.bits != 0
    }

    /// Whether the reader gets all that is in a tick with these bits of channels.
    pub fn wants_all(&self, channels: i64) -> bool {
        let may_be_private = channels & channel_bit(GATEWAY) != 0;
        self.topics.is_none()
            && (self.is_gateways || !may_be_private)
            && match &self.wanted {
                Wanted::Everything => true,
                Wanted::Heard(hearing) => hearing.hears_all(),
                Wanted::Channels(_) => false,
            }
    }

    /// What the reader gets of what was written to this channel, with this topic, at a place of the WAL.
    pub fn share(&self, channel: &[u8], topic: Option<&[u8]>, position: i64) -> Result<Share> {
        let is_wanted = match (&self.topics, topic) {
            (None, _) => true,
            (Some(topics), Some(topic)) => {
                self.add_tried(topics.count());
                topics.match_topic(topic, None)
            }
            (Some(_), None) => false,
        };
        if !is_wanted || is_private(channel) && !self.is_gateways {
            return Ok(Share::Nothing);
        }
        match &self.wanted {
            Wanted::Everything => Ok(Share::Notice),
            Wanted::Heard(hearing) => hearing.share(channel, |readable| {
                self.add_tried(readable.count_patterns());
                readable.share(topic, position)
            }),
            Wanted::Channels(channels) => {
                Ok(channels.get(channel).map_or(Share::Nothing, |readable| {
                    self.add_tried(readable.count_patterns());
                    readable.share(topic, position)
                }))
            }
        }
    }

    fn add_tried(&self, patterns: usize) {
        self.tried.set(self.tried.get() + patterns);
    }

    /// What the looks since the last time cost beside the reading of the events, in such readings.
    pub fn take_steps(&self) -> usize {
        let looked_up = match &self.wanted {
            Wanted::Heard(hearing) => hearing.take_looked_up(),
            Wanted::Everything | Wanted::Channels(_) => 0,
        };
        let tried = self.tried.get();
        self.tried.set(tried % PATTERNS_A_STEP);
        tried / PATTERNS_A_STEP + looked_up * STEPS_A_CHANNEL
    }
}
