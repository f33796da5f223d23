//! From one part of the log to the next: by size and age, and emptying what is too old or too much.

use pushy_core::log::cursor::Cursor;

use super::worker::Relay;
use crate::errors::Result;
use crate::log::parts::{log_table, tick_index, tick_table, PARTS, SHARE};
use crate::log::state::{self, State};
use crate::log::tick::Tick;
use crate::log::{is_full, BLOCK};
use crate::params;
use crate::pg::failure::Failure;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{append_only, clock, heap, identity, snapshot, BuiltinOid};
use crate::settings;

/// When to look again for what could not be emptied.
const AGAIN_US: i64 = 60_000_000;

static CLOSE: Plan = Plan::new(
    "UPDATE pushy.log_part SET closed_at = $2 WHERE part OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::TIMESTAMPTZOID],
);

static OPEN: Plan = Plan::new(
    "UPDATE pushy.log_part SET opened_at = $2, closed_at = NULL, first_epoch = $3, first_tick = $4 \
      WHERE part OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
    ],
);

static FREE: Plan = Plan::new(
    "UPDATE pushy.log_part SET opened_at = NULL, closed_at = NULL, first_epoch = NULL, first_tick = NULL \
      WHERE part OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

static WRITE_TO: Plan = Plan::new(
    "UPDATE pushy.log_state SET part = $1",
    &[BuiltinOid::INT4OID],
);

static WRITE_DOWN: Plan = Plan::new(
    "UPDATE pushy.log_state \
        SET told_epoch = $1, told_tick = $2, last_epoch = $3, last_tick = $4, last_n = $5, seen = $6",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::BYTEAOID,
    ],
);

static LOSE: Plan = Plan::new(
    "UPDATE pushy.log_state SET lost_epoch = $1, lost_tick = $2, lost_n = $3",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
    ],
);

/// Bytes of a part, its ticks included.
fn size_of(part: u32) -> i64 {
    append_only::total_bytes(log_table(part)) + append_only::total_bytes(tick_table(part))
}

impl Relay {
    /// Turns to another part when the current one is big or old, and empties others; answers when to look again
    /// for what could not be emptied.
    pub(super) fn turn_and_empty(&mut self) -> std::result::Result<(), Failure> {
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
        let is_big = here >= most / SHARE;
        let is_old = here > 2 * BLOCK && now.0 - opened_at >= keep / SHARE;
        let mut total: i64 = sizes.iter().sum();
        // The oldest first.
        let mut closed: Vec<(u32, i64)> = state
            .parts
            .iter()
            .filter(|part| part.part != self.part)
            .map(|part| (part.part, part.closed_at.unwrap_or(part.opened_at)))
            .collect();
        closed.sort_by_key(|(_, closed_at)| *closed_at);
        let no_room = closed.len() as u32 + 1 == PARTS;
        let mut freed = None;
        for (part, closed_at) in closed {
            let wanted =
                closed_at + keep <= now.0 || total > most || (is_big && no_room && freed.is_none());
            if wanted && self.empty(part)? {
                total -= sizes[part as usize];
                freed = Some(part);
            }
        }
        if is_big || is_old {
            let in_use = |part: u32| state.parts.iter().any(|known| known.part == part);
            let free = (0..PARTS).find(|part| !in_use(*part)).or(freed);
            if let Some(free) = free {
                self.turn_to(free, now)?;
            }
        }
        let log = &self.place.log;
        let blocks = transaction::run(|| {
            let bytes = append_only::total_bytes(log_table(self.part));
            Ok((bytes / BLOCK) as u32)
        })?;
        if is_full(blocks) {
            log.set_full(self.part);
        } else {
            log.set_room();
        }
        Ok(())
    }

    /// Writers go on in another part.
    fn turn_to(&mut self, part: u32, now: Timestamp) -> std::result::Result<(), Failure> {
        // Its age is that of its last event.
        let closed_at = if self.last_at == 0 {
            now
        } else {
            Timestamp(self.last_at)
        };
        transaction::run(|| {
            identity::as_owner(|| {
                spi::run(&CLOSE, params![self.part as i32, closed_at]);
                spi::run(&OPEN, params![part as i32, now, self.epoch, self.next_tick]);
                spi::run(&WRITE_TO, params![part as i32]);
                Ok(())
            })
        })?;
        self.part = part;
        self.place.log.set_part(part);
        Ok(())
    }

    /// Empties a part, if nobody is at it and all in it is in ticks. The lock is never waited for: nobody
    /// queues behind us. It is had only if no transaction that wrote there, or reads there, is left.
    fn empty(&mut self, part: u32) -> std::result::Result<bool, Failure> {
        let lost = transaction::run(|| {
            identity::as_owner(|| {
                if !append_only::lock_out(log_table(part))
                    || !append_only::lock_out(tick_table(part))
                {
                    return Ok(None);
                }
                // Whoever wrote there has ended, and had told before: it is in a tick, or known here.
                let Some(ring) = self.ring.filter(|ring| !ring.has_overflowed()) else {
                    return self.empty_unless_needed(part);
                };
                for written in ring.drain(self.place.oid()) {
                    if !self.seen.is_over(written.xid) {
                        self.unticked.tell(written);
                    }
                }
                if self.must_scan || self.unticked.lies_in(part) {
                    return Ok(None);
                }
                self.empty_locked(part).map(Some)
            })
        })?;
        if lost.is_some() {
            if let Some(reach) = &mut self.reach {
                reach[part as usize] = Cursor::START;
            }
        }
        Ok(lost.is_some())
    }

    /// Without a ring nothing is known but what is in the table.
    fn empty_unless_needed(&mut self, part: u32) -> Result<Option<Cursor>> {
        if self.ring.is_some() {
            return Ok(None);
        }
        let mut needed = false;
        let table = heap::open_for_reading(log_table(part))?;
        table.scan(|met| {
            let xid = met.row.i64(crate::log::parts::log::XID) as u64;
            needed |= !self.seen.is_over(xid);
            Ok(())
        })?;
        drop(table);
        if needed {
            return Ok(None);
        }
        self.empty_locked(part).map(Some)
    }

    fn empty_locked(&mut self, part: u32) -> Result<Cursor> {
        let state = state::read()?;
        if self.reach.is_none() {
            self.reach = Some(self.find_reach(&state)?);
        }
        let reach = self
            .reach
            .as_ref()
            .map_or(Cursor::START, |reach| reach[part as usize]);
        let lost = state.lost.max(reach);
        spi::run(&LOSE, params![lost.epoch, lost.tick, lost.n]);
        spi::run(&FREE, params![part as i32]);
        self.write_down_here();
        spi::command(&format!(
            "TRUNCATE ONLY pushy.{}, ONLY pushy.{}",
            log_table(part),
            tick_table(part)
        ));
        Ok(lost)
    }

    /// The last tick of each part, or with events in it: with the part it is lost.
    fn find_reach(&self, state: &State) -> Result<Vec<Cursor>> {
        let mut reach = vec![Cursor::START; PARTS as usize];
        let snapshot = snapshot::take_latest();
        for known in &state.parts {
            let table = heap::open_for_reading(tick_table(known.part))?;
            let index = tick_index(known.part);
            table.read_in_order(index, &[], &snapshot, false, |row| {
                reached(&mut reach, known.part, &Tick::read(row)?);
                Ok(true)
            })?;
        }
        Ok(reach)
    }

    pub(super) fn remember_reach(&mut self, ticks: &[Tick]) {
        if let Some(reach) = &mut self.reach {
            for tick in ticks {
                reached(reach, self.part, tick);
            }
        }
    }

    /// Writes down how far all was put into ticks and told, for a relay that finds no tick.
    pub(super) fn write_down(&mut self) -> std::result::Result<(), Failure> {
        if self.written_down == Some(self.told) {
            return Ok(());
        }
        transaction::run(|| {
            identity::as_owner(|| {
                self.write_down_here();
                Ok(())
            })
        })?;
        self.written_down = Some(self.told);
        Ok(())
    }

    fn write_down_here(&self) {
        let (told_epoch, told_tick) = self.told_tick();
        let (last, seen) = (self.last, self.seen.encode());
        spi::run(
            &WRITE_DOWN,
            params![told_epoch, told_tick, last.epoch, last.tick, last.n, seen],
        );
    }

    /// When something in the log will be too old.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        let keep = settings::log_keep().as_micros() as i64;
        let state = transaction::run(|| identity::as_owner(state::read)).ok()?;
        let here = transaction::run(|| identity::as_owner(|| Ok(size_of(self.part)))).ok()?;
        let ages = state.parts.iter().filter_map(|part| match part.closed_at {
            Some(closed_at) => Some(closed_at),
            None if here > 2 * BLOCK => Some(part.opened_at.max(self.last_at)),
            None => None,
        });
        let soonest = clock::now().0 + AGAIN_US;
        ages.min().map(|at| (at + keep).max(soonest))
    }
}

fn reached(reach: &mut [Cursor], written_in: u32, tick: &Tick) {
    for (part, last) in reach.iter_mut().enumerate() {
        if part as u32 == written_in || tick.parts & (1 << part) != 0 {
            *last = (*last).max(tick.last());
        }
    }
}
