//! Reading the log from a cursor on: tick by tick, each event by its address.

use std::collections::HashMap;

use pushy_core::log::cursor::Cursor;
use pushy_core::log::standing::CursorStanding;

use super::events::{self, EventFetcher};
use super::filter::{Filter, Share};
use super::log_snapshot::LogSnapshot;
use super::merged::{merged_in, Merged};
use super::parts;
use super::standing;
use super::tick::Tick;
use crate::errors::Result;
use crate::pg::spi::Row;
use crate::pg::value::Timestamp;

/// An event as its readers get it, in the database's encoding.
#[derive(Clone, Debug)]
pub struct Notice {
    pub cursor: Cursor,
    /// When the relay met it.
    pub at: Timestamp,
    pub channel: Vec<u8>,
    pub topic: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    pub merge: bool,
    /// The job that wrote it, and its depth.
    pub cause: Option<(i64, i32)>,
}

impl Notice {
    pub fn of(row: &Row<'_>, cursor: Cursor, at: Timestamp, channel: Vec<u8>) -> Self {
        let topic = row.opt_bytes(parts::log::TOPIC);
        Self::of_topic(row, cursor, at, channel, topic)
    }

    pub(super) fn of_topic(
        row: &Row<'_>,
        cursor: Cursor,
        at: Timestamp,
        channel: Vec<u8>,
        topic: Option<Vec<u8>>,
    ) -> Self {
        Self {
            cursor,
            at,
            channel,
            topic,
            payload: row.opt_bytes(parts::log::PAYLOAD).unwrap_or_default(),
            merge: row.bool(parts::log::MERGE),
            cause: row
                .opt_i64(parts::log::CAUSED_BY)
                .map(|job| (job, i32::from(row.i16(parts::log::DEPTH)))),
        }
    }
}

/// What equal notices have in common: channel, topic and payload.
pub type Equal = (Vec<u8>, Option<Vec<u8>>, Vec<u8>);

impl Notice {
    pub fn equal(&self) -> Equal {
        let (channel, topic) = (self.channel.clone(), self.topic.clone());
        (channel, topic, self.payload.clone())
    }
}

/// What comes next for a reader.
pub enum LogItem {
    Notice(Notice),
    /// Events before this place are missing: emptied before they were read, or never logged.
    Resync(Cursor),
}

/// How many ticks and events one look may go through, whatever of them is for its reader: some 5 ms. A tick of which notices are merged is
/// read through for that, too: of the first such tick beside what is counted, so that each look comes on.
#[derive(Clone, Copy)]
pub struct Stretch(pub usize);

impl Stretch {
    /// Of a worker, or of a session between two of its transactions: others have their turn, and no snapshot is held for long.
    pub const TURN: Self = Self(5_000);
    /// Of a session, in a statement of its own.
    pub const WHOLE: Self = Self(usize::MAX);
}

/// How far a reader has come.
pub struct Reached {
    /// The place of the last one handed over, or of the last one passed over.
    pub passed: Cursor,
    /// The stretch is over: there may be more.
    pub is_cut: bool,
}

/// Hands over what comes after a cursor, until `each` has enough (false), or as much has been gone through as the stretch allows.
/// As the extension's owner.
pub fn after(
    from: Cursor,
    filter: &Filter,
    stretch: Stretch,
    mut each: impl FnMut(LogItem) -> Result<bool>,
) -> Result<Reached> {
    let mut way = Delivery {
        passed: from,
        is_gone: false,
        has_missed: false,
        left: stretch.0,
        has_merged: false,
    };
    way.go(filter, &mut each)?;
    Ok(Reached {
        passed: way.passed,
        is_cut: way.left == 0,
    })
}
/// A reader on its way through the log.
struct Delivery {
    passed: Cursor,
    /// It has come to what is there no more.
    is_gone: bool,
    /// Passed over without a word: an event of a channel into which the reader was let only later.
    has_missed: bool,
    /// What is left of its stretch.
    left: usize,
    /// It has read through a tick for what is to be merged.
    has_merged: bool,
}

impl Delivery {
    fn go(
        &mut self,
        filter: &Filter,
        each: &mut impl FnMut(LogItem) -> Result<bool>,
    ) -> Result<()> {
        let (snapshot, tables) = events::open()?;
        let log = EventFetcher::new(&tables);
        self.is_gone = standing::of(&snapshot, self.passed)? == CursorStanding::Gone;
        if !self.pass_lost(&snapshot, each)? {
            return Ok(());
        }
        for (at, part) in snapshot.parts.iter().enumerate() {
            let next = snapshot.parts.get(at + 1);
            if next.is_some_and(|next| next.first <= (self.passed.epoch, self.passed.tick)) {
                continue;
            }
            let from = (self.passed.epoch, self.passed.tick);
            let is_enough = snapshot.each_tick_from(part.part, from, |tick| {
                Ok(self.pass_lost(&snapshot, each)? && hand_over(&log, &tick, filter, self, each)?)
            })?;
            if is_enough {
                if self.has_missed {
                    // Who goes on from here does not know of it.
                    self.resync(self.passed, each)?;
                }
                return Ok(());
            }
        }
        if self.pass_lost(&snapshot, each)? {
            if self.is_gone {
                self.resync(standing::newest(&snapshot)?, each)?;
            } else if self.has_missed {
                self.resync(self.passed, each)?;
            }
        }
        Ok(())
    }

    /// Goes past a tick or an event, once what was wanted of those before cost so many steps more; false when the stretch is over.
    fn step(&mut self, more: usize) -> bool {
        self.left = self.left.saturating_sub(1 + more);
        self.left > 0
    }

    /// Whether it may read through a tick of so many events for what is to be merged; if not, the stretch is over.
    fn may_merge(&mut self, events: usize) -> bool {
        if !self.has_merged {
            self.has_merged = true;
            return true;
        }
        let may = self.left > events;
        self.left = if may { self.left - events } else { 0 };
        may
    }

    /// Says that events were emptied before they were read, if some were; false when the reader has enough.
    fn pass_lost(
        &mut self,
        snapshot: &LogSnapshot,
        each: &mut impl FnMut(LogItem) -> Result<bool>,
    ) -> Result<bool> {
        let lost = snapshot.lost_since()?;
        Ok(self.passed >= lost || self.resync(lost, each)?)
    }

    /// Says that events before this place are missing; false when the reader has enough.
    fn resync(
        &mut self,
        at: Cursor,
        each: &mut impl FnMut(LogItem) -> Result<bool>,
    ) -> Result<bool> {
        self.passed = at;
        self.is_gone = false;
        self.has_missed = false;
        each(LogItem::Resync(at))
    }
}

/// The events of one tick that come after the place that was passed; false when the reader has enough.
fn hand_over(
    log: &EventFetcher<'_>,
    tick: &Tick,
    filter: &Filter,
    way: &mut Delivery,
    each: &mut impl FnMut(LogItem) -> Result<bool>,
) -> Result<bool> {
    let is_missing = tick.lost || way.is_gone;
    if is_missing && way.passed < tick.cursor(0) && !way.resync(tick.cursor(0), each)? {
        return Ok(false);
    }
    if tick.last() <= way.passed {
        return Ok(true);
    }
    let mut goes_on = way.step(filter.take_steps());
    if !filter.may_want(tick.channels) {
        way.passed = tick.last();
        return Ok(goes_on);
    }
    let skip = tick.behind(way.passed);
    let mut merged: Option<HashMap<Equal, Merged>> = None;
    let is_there = log.events(&tick.runs, skip, |n, row| {
        let before = std::mem::replace(&mut way.passed, tick.cursor(n));
        goes_on = way.step(filter.take_steps());
        let channel = row.opt_bytes(parts::log::CHANNEL).unwrap_or_default();
        let topic = row.opt_bytes(parts::log::TOPIC);
        match filter.share(&channel, topic.as_deref(), row.i64(parts::log::LSN))? {
            Share::Notice => {}
            Share::Missed => {
                way.has_missed = true;
                return Ok(goes_on);
            }
            Share::Nothing => return Ok(goes_on),
        }
        // Said before the next notice, so that a reader gets one resync for all that it misses there.
        if way.has_missed {
            let here = way.passed;
            if !way.resync(before, each)? {
                goes_on = false;
                return Ok(false);
            }
            way.passed = here;
        }
        let mut notice = Notice::of_topic(&row, way.passed, tick.at, channel, topic);
        if notice.merge {
            let merged = match &mut merged {
                Some(merged) => merged,
                None if !way.may_merge(tick.events as usize) => {
                    way.passed = before;
                    goes_on = false;
                    return Ok(false);
                }
                None => merged.insert(merged_in(log, tick, filter)?),
            };
            if let Some(merged) = merged.get(&notice.equal()) {
                if merged.last > n {
                    return Ok(goes_on);
                }
                notice.cause = merged.cause;
            }
        }
        goes_on &= each(LogItem::Notice(notice))?;
        Ok(goes_on)
    })?;
    if !is_there {
        goes_on = way.resync(tick.last(), each)? && way.left > 0;
    }
    Ok(goes_on)
}
