//! How much of the log is behind a reader's cursor, for the view pushy.subscriptions.

use pushy_core::log::cursor::Cursor;

use super::events::EventFetcher;
use super::filter::{Filter, Share};
use super::parts::log;
use super::tick::Tick;
use crate::errors::Result;
use crate::pg::value::Timestamp;

/// Events that one look at the view reads at most. Past that ticks that may have something for a reader count as a whole.
const MOST_EVENTS: i32 = 100_000;

/// What a look at the view may still read.
pub struct Budget(i32);

impl Budget {
    pub fn new() -> Self {
        Self(MOST_EVENTS)
    }

    fn take(&mut self, events: i32) -> bool {
        let has = self.0 >= events;
        if has {
            self.0 -= events;
        }
        has
    }
}

/// What a reader has not read.
#[derive(Clone, Default)]
pub struct Behind {
    pub events: i64,
    pub bytes: i64,
    /// When the relay met the first of them.
    pub since: Option<Timestamp>,
    /// The reader missed something, because it is in no log, or because the reader was let into a channel later.
    pub has_missed: bool,
}

impl Behind {
    /// Counts what the tick has for a reader that is at this place.
    pub fn count(
        &mut self,
        events: &EventFetcher<'_>,
        tick: &Tick,
        cursor: Cursor,
        filter: &Filter,
        budget: &mut Budget,
    ) -> Result<()> {
        self.has_missed |= tick.lost && tick.cursor(0) > cursor;
        let passed = tick.behind(cursor);
        let left = tick.events - passed;
        if left == 0 || !filter.may_want(tick.channels) {
            return Ok(());
        }
        let steps = i32::try_from(filter.take_steps()).unwrap_or(MOST_EVENTS);
        if filter.wants_all(tick.channels) || !budget.take(left.saturating_add(steps)) {
            // Of a tick that is read in part, about.
            let bytes = tick.bytes * i64::from(left) / i64::from(tick.events).max(1);
            self.add(i64::from(left), bytes, tick.at);
            return Ok(());
        }
        events.events(&tick.runs, passed, |_, row| {
            let channel = row.opt_bytes(log::CHANNEL).unwrap_or_default();
            let topic = row.opt_bytes(log::TOPIC);
            match filter.share(&channel, topic.as_deref(), row.i64(log::LSN))? {
                Share::Notice => {
                    let texts = channel.len() + row.length(log::PAYLOAD);
                    let topic = topic.map_or(0, |topic| topic.len());
                    self.add(1, (texts + topic) as i64, tick.at);
                }
                Share::Missed => self.has_missed = true,
                Share::Nothing => {}
            }
            Ok(true)
        })?;
        Ok(())
    }

    fn add(&mut self, events: i64, bytes: i64, at: Timestamp) {
        self.events += events;
        self.bytes += bytes;
        self.since.get_or_insert(at);
    }
}
