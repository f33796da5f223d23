//! Notices of one transaction that say the same: which of them are published.
//!
//! Who applies notices in their order must end with what the table has. So a row or a count is published as often as
//! it was said, a key unless its equal was the last word on the channel, and a text that is the whole message once,
//! in the place of the last: of 1, 2, 1, 2 that is 1, 2, and never 2, 1.

use std::borrow::Cow;

use rustc_hash::{FxHashMap, FxHashSet};

/// What a notice is worth when an equal one was published before it in the same transaction, on the same channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Published each time. A row or a count (JSON).
    Counts,
    /// Published unless its equal was the last on the channel. JSON, or by relay any text.
    Follows,
    /// Published once, in the place of the last. An empty payload, or the user's text.
    Replaces,
}

/// A notice as far as it matters here; equal ones are of the same cause.
#[derive(Clone, Copy)]
pub struct NoticeKey<'a> {
    pub channel: &'a [u8],
    pub topic: Option<&'a [u8]>,
    pub payload: &'a [u8],
    pub cause: Option<(i64, i32)>,
    pub repeat: Repeat,
}

impl NoticeKey<'_> {
    pub fn is_same(&self, other: &Self) -> bool {
        self.payload == other.payload
            && self.channel == other.channel
            && self.topic == other.topic
            && self.cause == other.cause
    }
}

/// Whether each notice is published.
pub fn kept(all: &[NoticeKey<'_>]) -> Vec<bool> {
    let mut kept = vec![true; all.len()];
    if all.iter().any(|key| key.repeat == Repeat::Replaces) {
        let mut later = FxHashSet::default();
        for (key, kept) in all.iter().zip(&mut kept).rev() {
            if key.repeat == Repeat::Replaces {
                *kept = later.insert((key.payload, key.channel, key.topic, key.cause));
            }
        }
    }
    // The last word on the channel of the moment, and on those of before.
    let mut last: Option<&NoticeKey> = None;
    let mut others: FxHashMap<&[u8], &NoticeKey> = FxHashMap::default();
    for (key, kept) in all.iter().zip(&mut kept).filter(|(_, kept)| **kept) {
        let before = match last {
            Some(last) if last.channel == key.channel => Some(last),
            Some(last) => {
                others.insert(last.channel, last);
                others.get(key.channel).copied()
            }
            None => None,
        };
        *kept = key.repeat != Repeat::Follows || before.is_none_or(|before| !before.is_same(key));
        last = Some(key);
    }
    kept
}

/// How many equal ones of the transaction went before: what keeps NOTIFY, which delivers equal notices once, from
/// leaving this one out.
pub struct RepeatCounter<'a>(FxHashMap<(&'a [u8], &'a [u8]), u32>);

/// The longest member that [`RepeatCounter::distinct`] adds.
pub const MEMBER_BYTES: usize = r#","repeat":4294967295"#.len();

impl<'a> RepeatCounter<'a> {
    pub fn with_capacity(notices: usize) -> Self {
        Self(FxHashMap::with_capacity_and_hasher(
            notices,
            Default::default(),
        ))
    }

    /// The payload as it is emitted: a repeated one has a member `repeat` more.
    pub fn distinct(&mut self, key: &NoticeKey<'a>) -> Cow<'a, [u8]> {
        let before = self.0.entry((key.payload, key.channel)).or_default();
        let repeat = *before;
        *before += 1;
        match key.payload {
            [object @ .., b'}'] if repeat > 0 => {
                Cow::Owned([object, format!(r#","repeat":{repeat}}}"#).as_bytes()].concat())
            }
            payload => Cow::Borrowed(payload),
        }
    }
}
