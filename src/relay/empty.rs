//! Emptying a part of the log: truncated where nobody minds, else in place.

use super::part::{AGAIN_US, CLEANED, FREE, NEXT_TO_NOTHING, TIDY_US};
use super::worker::Relay;
use crate::errors::Result;
use crate::log::parts::{self, log_table, tick_table};
use crate::log::state::{self};
use crate::params;
use crate::pg::heap::Table;
use crate::pg::spi::{self};
use crate::pg::standby;
use crate::pg::table_lock::{self, Lock};
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{identity, vacuum};
use crate::settings;
use pushy_core::log::cursor::Cursor;

impl Relay {
    /// Empties a part: by TRUNCATE if that disturbs nobody, else in place. False when somebody holds even its ticks.
    pub(super) fn empty(&mut self, part: u32, on_disk: i64) -> Result<bool> {
        if self.may_truncate(on_disk)? && self.truncate(part)? {
            return Ok(true);
        }
        self.abandon(part)
    }

    /// Whether parts may be truncated while the log has `on_disk` bytes. Where there is a standby, only if these are
    /// twice what the log may hold: truncation disturbs a standby's readers, which a burst of writes may do, and the log's
    /// ordinary round each few minutes may not.
    fn may_truncate(&self, on_disk: i64) -> Result<bool> {
        if on_disk >= 2 * settings::log_max_size() {
            return Ok(true);
        }
        transaction::run(|| identity::as_owner(|| Ok(!standby::may_be_there())))
    }

    /// Frees a part whose ticks and events no reader gets from here on, and cleans it in place. Waits for no transaction
    /// that reads or writes there: what one that has not ended wrote stays.
    fn abandon(&mut self, part: u32) -> Result<bool> {
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
        self.database_slot.log.announce_emptied();
        self.clean(part)?;
        Ok(true)
    }

    /// Makes room in a part that was given up.
    fn clean(&self, part: u32) -> Result<()> {
        let seen = &self.seen;
        let is_over =
            |row: &spi::Row<'_>| seen.is_over(row.i64(crate::log::parts::log::XID) as u64);
        let disowned = transaction::run_unless_busy(|| {
            identity::as_owner(|| {
                parts::open_log(part)?.disown(|row| is_over(&row))?;
                parts::open_ticks(part)?.disown(|_| true)?;
                Ok(())
            })
        })?;
        if disowned.is_none() {
            return Ok(());
        }
        vacuum::run(&[log_table(part), tick_table(part)])?;
        transaction::run_unless_busy(|| {
            identity::as_owner(|| {
                let log = parts::read_log(part)?;
                // VACUUM passes over a table that somebody vacuums, and over pages that somebody looks at.
                if 2 * pages_with(&log, is_over)? <= log.blocks() {
                    spi::run(&CLEANED, params![part as i32, log.blocks() as i32]);
                }
                Ok(())
            })
        })?;
        Ok(())
    }

    /// Now and then: cleans parts that could not be cleaned when they were given up, and truncates free ones that nobody
    /// holds any more.
    pub(super) fn tidy(&mut self, sizes: &[i64], now: Timestamp) -> Result<()> {
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
    fn truncate(&mut self, part: u32) -> Result<bool> {
        let lost = transaction::run(|| {
            identity::as_owner(|| {
                if !table_lock::try_lock(log_table(part), Lock::AccessExclusive)
                    || !table_lock::try_lock(tick_table(part), Lock::AccessExclusive)
                {
                    return Ok(None);
                }
                // Every writer of the part has ended, and had announced its events before: the events of each are in a tick, or known here.
                let Some(ring) = self.ring.filter(|ring| !ring.has_overflowed()) else {
                    return self.empty_unless_needed(part);
                };
                for written in ring.drain(self.database_slot.oid()) {
                    if !self.seen.is_over(written.xid) {
                        self.unticked.add(written);
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
}

/// Pages that have rows of this kind.
fn pages_with(table: &Table, is_one: impl Fn(&spi::Row<'_>) -> bool) -> Result<u32> {
    let (mut pages, mut last) = (0, None);
    table.scan(|met| {
        if last != Some(met.block) && is_one(&met.row) {
            last = Some(met.block);
            pages += 1;
        }
        Ok(())
    })?;
    Ok(pages)
}
