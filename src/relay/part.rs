//! From one part of the log to the next: by size and age, and emptying what is too old or too much.

use super::worker::Relay;
use crate::errors::Result;
use crate::log::parts::{log_table, tick_table, PARTS, SHARE};
use crate::log::state::{self, State};
use crate::log::{is_big, is_full};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::standby;
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, size, BuiltinOid};
use crate::settings;
use crate::shared::database::NEVER;

/// When to look again for what could not be emptied.
pub(super) const AGAIN_US: i64 = 60_000_000;
/// The same while the relay runs, of parts that are free.
pub(super) const TIDY_US: i64 = 5_000_000;

static CLOSE: Plan = Plan::new(
    "UPDATE pushy_internal.log_part SET closed_at = $2, bytes = $3 WHERE part OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
    ],
);

static OPEN: Plan = Plan::new(
    "UPDATE pushy_internal.log_part SET opened_at = $2, closed_at = NULL, first_epoch = $3, first_tick = $4, bytes = NULL \
      WHERE part OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
    ],
);

pub(super) static FREE: Plan = Plan::new(
    "UPDATE pushy_internal.log_part SET opened_at = NULL, closed_at = NULL, first_epoch = NULL, first_tick = NULL, blocks = $2 \
      WHERE part OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

pub(super) static CLEANED: Plan = Plan::new(
    "UPDATE pushy_internal.log_part SET blocks = $2 WHERE part OPERATOR(pg_catalog.=) $1 AND opened_at IS NULL",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

static WRITE_TO: Plan = Plan::new(
    "UPDATE pushy_internal.log_state SET part = $1",
    &[BuiltinOid::INT4OID],
);

static WRITE_DOWN: Plan = Plan::new(
    "UPDATE pushy_internal.log_state \
        SET emitted_epoch = $1, emitted_tick = $2, last_epoch = $3, last_tick = $4, last_n = $5, seen = $6",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::BYTEAOID,
    ],
);

/// Bytes of a part, its ticks included.
fn size_of(part: u32) -> i64 {
    size::total_bytes(log_table(part)) + size::total_bytes(tick_table(part))
}

/// Pages of the rows of a part.
pub(super) fn blocks_of(part: u32) -> u32 {
    (size::bytes(log_table(part)) / size::PAGE) as u32
}

/// Bytes of empty tables with an index, about.
pub(super) const NEXT_TO_NOTHING: i64 = 4 * size::PAGE;

impl Relay {
    /// Turns to another part when the current one is big or old, and empties others.
    pub(super) fn switch_and_empty(&mut self) -> Result<()> {
        let now = clock::now();
        let (state, sizes) = transaction::run(|| {
            identity::as_owner(|| {
                let state = state::read()?;
                let sizes: Vec<i64> = (0..PARTS).map(size_of).collect();
                Ok((state, sizes))
            })
        })?;
        let most = settings::log_max_size();
        let keep = settings::log_keep().as_micros() as i64;
        let current = state.parts.iter().find(|part| part.part == self.part);
        let opened_at = current.map_or(now.0, |part| part.opened_at);
        let here = sizes[self.part as usize];
        let before = state.blocks();
        let is_big = if before == 0 {
            here >= most / SHARE
        } else {
            // In a part that is used again the old rows leave room: only what was added counts.
            let rows = transaction::run(|| Ok(blocks_of(self.part)))?;
            is_big(rows, before) || self.written_here >= most / SHARE
        };
        let is_old = self.is_written(&state, here) && now.0 - opened_at >= keep / SHARE;
        let used = |part: &state::Part| {
            let size = sizes[part.part as usize];
            let counted = if part.part == self.part {
                Some(self.written_here).filter(|_| part.blocks > 0)
            } else {
                part.used
            };
            counted.map_or(size, |counted| counted.min(size))
        };
        let mut total: i64 = state.parts.iter().map(used).sum();
        // The oldest first.
        let mut closed: Vec<(u32, i64, i64)> = state
            .parts
            .iter()
            .filter(|part| part.part != self.part)
            .map(|part| {
                let closed_at = part.closed_at.unwrap_or(part.opened_at);
                (part.part, closed_at, used(part))
            })
            .collect();
        closed.sort_by_key(|(_, closed_at, _)| *closed_at);
        let no_room = closed.len() as u32 + 1 == PARTS;
        let mut freed = None;
        for (part, closed_at, used) in closed {
            let wanted =
                closed_at + keep <= now.0 || total > most || (is_big && no_room && freed.is_none());
            if wanted && self.empty(part, sizes.iter().sum())? {
                total -= used;
                freed = Some(part);
            }
        }
        self.tidy(&sizes, now)?;
        if is_big || is_old {
            // Whoever began to write there goes on: a part that had no old rows is measured each time.
            let used = (before > 0).then(|| here.min(self.written_here));
            self.switch(used, now)?;
        }
        let log = &self.database_slot.log;
        let blocks = transaction::run(|| Ok(blocks_of(self.part)))?;
        if is_full(blocks, log.blocks()) {
            log.set_full(self.part);
        } else {
            log.clear_full();
            if self.must_close {
                log.look_again();
            }
        }
        Ok(())
    }

    /// Whether a tick has something that was written to the current part since it was opened.
    fn is_written(&self, state: &State, size: i64) -> bool {
        let current = state.parts.iter().find(|part| part.part == self.part);
        let first = current.map_or((0, 0), |part| part.first);
        size > 2 * size::PAGE && first <= (self.last.epoch, self.last.tick)
    }

    /// Writers go on in another part, if one is free.
    fn switch(&mut self, used: Option<i64>, now: Timestamp) -> Result<()> {
        let free = transaction::run(|| identity::as_owner(state::free))?;
        // A part that is still to be cleaned has no room but behind its rows.
        let cleaned = free.iter().find(|free| free.blocks.is_some());
        if let Some(free) = cleaned.or(free.first()) {
            let blocks = free.blocks.unwrap_or(0);
            self.switch_to(free.part, blocks, used, now)?;
        }
        Ok(())
    }

    fn switch_to(
        &mut self,
        part: u32,
        blocks: u32,
        used: Option<i64>,
        now: Timestamp,
    ) -> Result<()> {
        // The closed part is as old as its last event.
        let closed_at = if self.last_at == 0 {
            now
        } else {
            Timestamp(self.last_at)
        };
        transaction::run(|| {
            identity::as_owner(|| {
                spi::run(&CLOSE, params![self.part as i32, closed_at, used]);
                spi::run(&OPEN, params![part as i32, now, self.epoch, self.next_tick]);
                spi::run(&WRITE_TO, params![part as i32]);
                Ok(())
            })
        })?;
        self.part = part;
        self.written_here = 0;
        self.database_slot.log.set_part(part, blocks);
        Ok(())
    }

    /// Writes down up to where events are in ticks, and emitted to LISTENers, for a relay that finds no tick.
    pub(super) fn write_down(&mut self) -> Result<()> {
        if self.written_down == Some(self.emitted) {
            return Ok(());
        }
        transaction::run(|| {
            identity::as_owner(|| {
                self.write_down_here();
                Ok(())
            })
        })?;
        self.written_down = Some(self.emitted);
        Ok(())
    }

    pub(super) fn write_down_here(&self) {
        let (emitted_epoch, emitted_tick) = self.emitted_tick();
        let (last, seen) = (self.last, self.seen.encode());
        spi::run(
            &WRITE_DOWN,
            params![
                emitted_epoch,
                emitted_tick,
                last.epoch,
                last.tick,
                last.n,
                seen
            ],
        );
    }

    /// When something in the log will be too old; NEVER where there is nothing.
    pub(super) fn next_expiry(&self) -> Result<i64> {
        let keep = settings::log_keep().as_micros() as i64;
        let state = transaction::run(|| identity::as_owner(state::read))?;
        let here = transaction::run(|| identity::as_owner(|| Ok(size_of(self.part))))?;
        let ages = state.parts.iter().filter_map(|part| match part.closed_at {
            Some(closed_at) => Some(closed_at),
            None if self.is_written(&state, here) => Some(part.opened_at.max(self.last_at)),
            None => None,
        });
        let now = clock::now().0;
        // What could not be emptied at its time is looked at again no sooner than events grow old.
        let aged = ages
            .min()
            .map(|at| (at + keep).max(now + keep.min(AGAIN_US)));
        // A part that somebody held when it was emptied is still to be truncated.
        let is_untidy = |part: u32| {
            let is_free = state.parts.iter().all(|other| other.part != part);
            is_free && size_of(part) > NEXT_TO_NOTHING
        };
        let untidy = transaction::run(|| {
            identity::as_owner(|| Ok((0..PARTS).any(is_untidy) && !standby::may_be_there()))
        })?;
        let untidy = untidy.then_some(now + AGAIN_US);
        Ok(aged.into_iter().chain(untidy).min().unwrap_or(NEVER))
    }
}
