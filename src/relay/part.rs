//! From one part of the log to the next: by size and age, and emptying what is too old or too much.

use pushy_core::log::cursor::Cursor;

use super::worker::Relay;
use crate::errors::Result;
use crate::log::parts::{self, log_table, tick_index, tick_table, PARTS, SHARE};
use crate::log::state::{self, State};
use crate::log::tick::Tick;
use crate::log::{is_big, is_full, BLOCK};
use crate::params;
use crate::pg::failure::Failure;
use crate::pg::spi::{self, Plan};
use crate::pg::standby;
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{append_only, clock, identity, snapshot, vacuum, BuiltinOid};
use crate::{settings, shared};

/// When to look again for what could not be emptied.
const AGAIN_US: i64 = 60_000_000;
/// The same while the relay runs, of parts that are free.
const TIDY_US: i64 = 5_000_000;

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

static FREE: Plan = Plan::new(
    "UPDATE pushy_internal.log_part SET opened_at = NULL, closed_at = NULL, first_epoch = NULL, first_tick = NULL, blocks = $2 \
      WHERE part OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

static CLEANED: Plan = Plan::new(
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

static LOSE: Plan = Plan::new(
    "UPDATE pushy_internal.log_state SET lost_epoch = $1, lost_tick = $2, lost_n = $3",
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

/// Pages of the rows of a part.
fn blocks_of(part: u32) -> u32 {
    (append_only::bytes(log_table(part)) / BLOCK) as u32
}

/// Bytes of empty tables with an index, about.
const NEXT_TO_NOTHING: i64 = 4 * BLOCK;

impl Relay {
    /// Turns to another part when the current one is big or old, and empties others.
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
            self.turn(used, now)?;
        }
        let log = &self.place.log;
        let blocks = transaction::run(|| Ok(blocks_of(self.part)))?;
        if is_full(blocks, log.blocks()) {
            log.set_full(self.part);
        } else {
            log.set_room();
        }
        Ok(())
    }

    /// Whether a tick tells of something that was written to the current part since it was opened.
    fn is_written(&self, state: &State, size: i64) -> bool {
        let current = state.parts.iter().find(|part| part.part == self.part);
        let first = current.map_or((0, 0), |part| part.first);
        size > 2 * BLOCK && first <= (self.last.epoch, self.last.tick)
    }

    /// Writers go on in another part, if one is free.
    fn turn(&mut self, used: Option<i64>, now: Timestamp) -> std::result::Result<(), Failure> {
        let free = transaction::run(|| identity::as_owner(state::free))?;
        // A part that is still to be cleaned has no room but behind its rows.
        let cleaned = free.iter().find(|free| free.blocks.is_some());
        if let Some(free) = cleaned.or(free.first()) {
            let blocks = free.blocks.unwrap_or(0);
            self.turn_to(free.part, blocks, used, now)?;
        }
        Ok(())
    }

    fn turn_to(
        &mut self,
        part: u32,
        blocks: u32,
        used: Option<i64>,
        now: Timestamp,
    ) -> std::result::Result<(), Failure> {
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
        self.place.log.set_part(part, blocks);
        Ok(())
    }

    /// Empties a part: by TRUNCATE if that disturbs nobody, else in place. False when somebody holds even its ticks.
    fn empty(&mut self, part: u32, on_disk: i64) -> std::result::Result<bool, Failure> {
        if self.may_truncate(on_disk)? && self.truncate(part)? {
            return Ok(true);
        }
        self.give_up(part)
    }

    /// Whether parts may be truncated while the log has `on_disk` bytes. Where there is a standby, only if these are
    /// twice what the log may hold: truncation disturbs a standby's readers, which a burst of writes may do, and the log's
    /// ordinary round each few minutes may not.
    fn may_truncate(&self, on_disk: i64) -> std::result::Result<bool, Failure> {
        if on_disk >= 2 * settings::log_max_size() {
            return Ok(true);
        }
        transaction::run(|| identity::as_owner(|| Ok(!standby::may_be_there())))
    }

    /// Frees a part whose ticks and events no reader gets from here on, and cleans it in place. Waits for no transaction
    /// that reads or writes there: what one that has not ended wrote stays.
    fn give_up(&mut self, part: u32) -> std::result::Result<bool, Failure> {
        let done = transaction::run_unless_busy(|| {
            identity::as_owner(|| {
                let lost = self.lose(part)?;
                spi::run(&FREE, params![part as i32, None::<i32>]);
                spi::command(&format!(
                    "DELETE FROM ONLY pushy_internal.{}",
                    tick_table(part)
                ));
                // Durably: `clean` marks rows on disk, and its marks must not reach the disk before this commit.
                transaction::commit_durably();
                Ok(lost)
            })
        })?;
        if done.is_none() {
            return Ok(false);
        }
        self.forget_reach(part);
        // Before any row goes: a reader in the middle of the part learns that it may have missed some.
        self.place.log.tell_emptied();
        self.clean(part)?;
        Ok(true)
    }

    /// Makes room in a part that was given up.
    fn clean(&self, part: u32) -> std::result::Result<(), Failure> {
        let disowned = transaction::run_unless_busy(|| {
            identity::as_owner(|| {
                let seen = &self.seen;
                let is_over =
                    |row: spi::Row<'_>| seen.is_over(row.i64(crate::log::parts::log::XID) as u64);
                parts::read_log(part)?.disown(is_over);
                parts::read_ticks(part)?.disown(|_| true);
                Ok(())
            })
        })?;
        if disowned.is_none() {
            return Ok(());
        }
        vacuum::run(&[log_table(part), tick_table(part)])?;
        transaction::run_unless_busy(|| {
            identity::as_owner(|| {
                let blocks = blocks_of(part) as i32;
                spi::run(&CLEANED, params![part as i32, blocks]);
                Ok(())
            })
        })?;
        Ok(())
    }

    /// Now and then: cleans parts that could not be cleaned when they were given up, and truncates free ones that nobody
    /// holds any more.
    fn tidy(&mut self, sizes: &[i64], now: Timestamp) -> std::result::Result<(), Failure> {
        if now.0 < self.tidy_at && self.tidy_at - now.0 <= AGAIN_US {
            return Ok(());
        }
        self.tidy_at = now.plus_us(TIDY_US).0;
        let free = transaction::run(|| identity::as_owner(state::free))?;
        for free in free {
            let size = sizes[free.part as usize];
            if free.blocks.is_none() {
                self.clean(free.part)?;
            }
            if size > NEXT_TO_NOTHING && self.may_truncate(sizes.iter().sum())? {
                self.truncate(free.part)?;
            }
        }
        Ok(())
    }

    /// Truncates a part, if nobody uses it and all its events are in ticks. Never waits for the lock, because others would
    /// queue behind the relay. It gets the lock only if no transaction is left that wrote or reads there.
    fn truncate(&mut self, part: u32) -> std::result::Result<bool, Failure> {
        let lost = transaction::run(|| {
            identity::as_owner(|| {
                if !append_only::lock_out(log_table(part))
                    || !append_only::lock_out(tick_table(part))
                {
                    return Ok(None);
                }
                // Every writer of the part has ended, and had told the relay before: its events are in a tick, or known here.
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
        });
        let lost = match lost {
            Err(failure) if failure.is_busy() => None,
            lost => lost?,
        };
        if lost.is_some() {
            self.forget_reach(part);
        }
        Ok(lost.is_some())
    }

    /// A part was emptied.
    fn forget_reach(&mut self, part: u32) {
        shared::expect().uncharge_log(self.place.oid(), part);
        if let Some(reach) = &mut self.reach {
            reach[part as usize] = Cursor::START;
        }
    }

    /// Without a ring nothing is known but what is in the table.
    fn empty_unless_needed(&mut self, part: u32) -> Result<Option<Cursor>> {
        if self.ring.is_some() {
            return Ok(None);
        }
        let mut needed = false;
        let table = parts::read_log(part)?;
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
        let lost = self.lose(part)?;
        spi::run(&FREE, params![part as i32, 0]);
        spi::command(&format!(
            "TRUNCATE ONLY pushy_internal.{}, ONLY pushy_internal.{}",
            log_table(part),
            tick_table(part)
        ));
        Ok(lost)
    }

    /// Writes down that what lies in a part is lost to readers; answers up to where.
    fn lose(&mut self, part: u32) -> Result<Cursor> {
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
        self.write_down_here();
        Ok(lost)
    }

    /// For each part the last tick that is lost when the part is emptied: the tick is stored in it, or some of its
    /// events are.
    fn find_reach(&self, state: &State) -> Result<Vec<Cursor>> {
        let mut reach = vec![Cursor::START; PARTS as usize];
        let snapshot = snapshot::take_latest();
        for known in &state.parts {
            let table = parts::read_ticks(known.part)?;
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

    /// Writes down up to where events are in ticks, and told to LISTENers, for a relay that finds no tick.
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

    /// When something in the log will be too old.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        let keep = settings::log_keep().as_micros() as i64;
        let state = transaction::run(|| identity::as_owner(state::read)).ok()?;
        let here = transaction::run(|| identity::as_owner(|| Ok(size_of(self.part)))).ok()?;
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
            let is_free = state.parts.iter().all(|known| known.part != part);
            is_free && size_of(part) > NEXT_TO_NOTHING
        };
        let untidy = transaction::run(|| {
            identity::as_owner(|| Ok((0..PARTS).any(is_untidy) && !standby::may_be_there()))
        });
        let untidy = untidy.ok()?.then_some(now + AGAIN_US);
        aged.into_iter().chain(untidy).min()
    }
}

fn reached(reach: &mut [Cursor], written_in: u32, tick: &Tick) {
    for (part, last) in reach.iter_mut().enumerate() {
        if part as u32 == written_in || tick.parts & (1 << part) != 0 {
            *last = (*last).max(tick.last());
        }
    }
}
