//! Ticks: what the relay met at once, and where it lies.

use pushy_core::channel;
use pushy_core::log::cursor::Cursor;
use pushy_core::log::runs::{self, Run};
use pushy_core::log::seen::Seen;

use super::parts::{self, tick_index};
use super::state::State;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::heap::{Key, Table};
use crate::pg::snapshot::Snapshot;
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

/// The newest tick there is.
pub fn newest(state: &State, snapshot: &Snapshot) -> Result<Option<Tick>> {
    for part in state.parts.iter().rev() {
        let table = parts::read_ticks(part.part)?;
        let mut found = None;
        table.read_in_order(tick_index(part.part), &[], snapshot, true, |row| {
            found = Some(Tick::read(row)?);
            Ok(false)
        })?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The ticks of one part from `from` on, until `each` has enough (false); whether it had.
pub fn of_part(
    table: &Table,
    part: u32,
    from: (i64, i64),
    snapshot: &Snapshot,
    mut each: impl FnMut(Tick) -> Result<bool>,
) -> Result<bool> {
    let index = tick_index(part);
    let mut enough = false;
    let mut see = |row: Row<'_>| {
        enough = !each(Tick::read(row)?)?;
        Ok(!enough)
    };
    let same_epoch = [Key::int8_equals(1, from.0), Key::int8_at_least(2, from.1)];
    table.read_in_order(index, &same_epoch, snapshot, false, &mut see)?;
    if !enough {
        let later = [Key::int8_at_least(1, from.0.saturating_add(1))];
        let mut see = |row: Row<'_>| {
            enough = !each(Tick::read(row)?)?;
            Ok(!enough)
        };
        table.read_in_order(index, &later, snapshot, false, &mut see)?;
    }
    Ok(enough)
}
