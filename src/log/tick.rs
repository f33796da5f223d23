//! Ticks: what the relay met at once, and where it lies.

use pushy_core::channel;
use pushy_core::log::cursor::Cursor;
use pushy_core::log::runs::{self, Run};
use pushy_core::log::seen::Seen;

use super::parts;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::Row;
use crate::pg::value::Timestamp;

#[derive(Clone, Debug)]
pub struct Tick {
    pub epoch: i64,
    pub tick: i64,
    pub at: Timestamp,
    pub events: i32,
    pub bytes: i64,
    /// A bit for each channel in it.
    pub channels: i64,
    /// A bit for each part in which its events lie.
    pub parts: i32,
    /// The last tick that had been emitted to LISTENers when this one was written.
    pub emitted: (i64, i64),
    /// Events are missing before it.
    pub lost: bool,
    pub seen: Vec<u8>,
    pub runs: Vec<Run>,
}

/// Events of a tick at most: its row fits on a page or two, and a reader can stop between two.
pub const MOST_EVENTS: usize = 4096;

/// The bit of a channel.
pub fn channel_bit(channel: &[u8]) -> i64 {
    hash_bit(channel::hash(channel))
}

/// The same, by the hash of the channel.
pub fn hash_bit(hash: u64) -> i64 {
    1i64 << (hash & 63)
}

impl Tick {
    /// Adds the events of a run.
    pub fn add(&mut self, run: Run) {
        self.events += i32::from(run.count);
        self.parts |= 1 << run.part;
        self.runs.push(run);
    }

    pub fn read(row: Row<'_>) -> Result<Self> {
        use parts::tick;
        let runs = row
            .opt_bytes(tick::RUNS)
            .and_then(|bytes| runs::decode(&bytes))
            .ok_or_else(|| {
                Error::new(
                    SqlState::INTERNAL_ERROR,
                    format!(
                        "tick {}-{} of the event log cannot be read",
                        row.i64(tick::EPOCH),
                        row.i64(tick::TICK)
                    ),
                )
                .hint("Was one of the tables pushy_internal.tick_… written by hand?")
            })?;
        Ok(Self {
            epoch: row.i64(tick::EPOCH),
            tick: row.i64(tick::TICK),
            at: row.timestamp(tick::AT),
            events: row.i32(tick::NOTICES),
            bytes: row.i64(tick::BYTES),
            channels: row.i64(tick::CHANNELS),
            parts: row.i32(tick::PARTS),
            emitted: (row.i64(tick::EMITTED_EPOCH), row.i64(tick::EMITTED_TICK)),
            lost: row.bool(tick::LOST),
            seen: row.opt_bytes(tick::SEEN).unwrap_or_default(),
            runs,
        })
    }

    /// Bytes that its events and its own row take, about.
    pub fn bytes_on_disk(&self) -> i64 {
        const OF_A_ROW: i64 = 80;
        const OF_A_TICK: i64 = 200;
        self.bytes + OF_A_ROW * i64::from(self.events) + OF_A_TICK
    }

    /// The place of its n-th event.
    pub fn cursor(&self, n: i32) -> Cursor {
        Cursor::new(self.epoch, self.tick, n)
    }

    pub fn last(&self) -> Cursor {
        self.cursor(self.events)
    }

    /// How many of its events, the first ones, a reader that is at this place has behind it.
    pub fn behind(&self, passed: Cursor) -> i32 {
        if passed < self.cursor(0) {
            0
        } else if passed < self.last() {
            passed.n
        } else {
            self.events
        }
    }

    pub fn seen(&self) -> Option<Seen> {
        Seen::decode(&self.seen)
    }
}

/// Writes ticks among those of the current part.
pub fn write(part: u32, ticks: &[Tick]) -> Result<()> {
    let table = parts::open_ticks(part)?;
    table.append(ticks.iter().map(|tick| {
        params![
            tick.epoch,
            tick.tick,
            tick.at,
            tick.events,
            tick.bytes,
            tick.channels,
            tick.parts,
            tick.emitted.0,
            tick.emitted.1,
            tick.lost,
            tick.seen.as_slice(),
            runs::encode(&tick.runs),
        ]
        .to_vec()
    }));
    Ok(())
}
