//! The log as of one moment: its state, and the ticks there were then. Whoever reads the state at one moment and the ticks at
//! another meets parts that were emptied, or are used again, in between; so both are had from here only.

use std::cell::Cell;
use std::ops::Deref;

use pushy_core::log::cursor::Cursor;

use super::parts::{self, tick_index};
use super::state::{self, State};
use super::tick::Tick;
use crate::errors::Result;
use crate::pg::heap::Key;
use crate::pg::snapshot::{self, Snapshot};
use crate::pg::spi::Row;
use crate::pg::{database, transaction};
use crate::shared;

pub struct LogSnapshot {
    state: State,
    snapshot: Snapshot,
    /// How often parts had been emptied in place when it was last looked up to where, and up to where.
    emptied: Cell<(Option<u64>, Cursor)>,
}

impl Deref for LogSnapshot {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

/// How often parts were emptied in place. None where nobody counts.
fn times_emptied() -> Option<u64> {
    let database_slot = shared::get().and_then(|shared| shared.find_database(database::current()));
    database_slot.map(|database_slot| database_slot.log.times_emptied())
}

impl LogSnapshot {
    /// As of now, whatever the transaction's snapshot; as the extension's owner.
    pub fn take() -> Result<Self> {
        // Before the snapshot: what is emptied later than it is counted later than this.
        let times_emptied = times_emptied();
        let snapshot = snapshot::take_latest();
        let state = snapshot.with_active(state::read_in_active_snapshot)?;
        Ok(Self {
            emptied: Cell::new((times_emptied, state.lost)),
            state,
            snapshot,
        })
    }

    /// As the calling statement sees it; as the extension's owner.
    pub fn of_statement() -> Result<Self> {
        let snapshot = snapshot::of_statement();
        let state = snapshot.with_active(state::read_in_active_snapshot)?;
        Ok(Self {
            emptied: Cell::new((None, state.lost)),
            state,
            snapshot,
        })
    }

    /// The state alone, which may outlive the transaction.
    pub fn into_state(self) -> State {
        self.state
    }

    /// Up to where ticks and events may be missing that there were then, because parts were emptied in place since. Asked
    /// after a tick was met and before it is believed that none is missing before it: the relay counts first, and takes the
    /// rows afterwards, in any order. Only for a reader that has locked the parts against TRUNCATE, which nobody counts.
    pub fn lost_since(&self) -> Result<Cursor> {
        // On a standby nobody counts.
        let (known, lost) = self.emptied.get();
        if times_emptied() == known && !transaction::is_in_recovery() {
            return Ok(lost);
        }
        self.lost_by_now()
    }

    /// The same as the table has it now. Asked after a tick was not found, because whoever looked for it may have waited for the
    /// TRUNCATE of its part, which had committed when the look began.
    pub fn lost_by_now(&self) -> Result<Cursor> {
        let times_emptied = times_emptied();
        let lost = state::read()?.lost;
        self.emptied.set((times_emptied, lost));
        Ok(lost)
    }

    /// The ticks of one part from `from` on, until `each` has enough (false); whether it had.
    pub fn each_tick_from(
        &self,
        part: u32,
        from: (i64, i64),
        mut each: impl FnMut(Tick) -> Result<bool>,
    ) -> Result<bool> {
        let same_epoch = [Key::int8_equals(1, from.0), Key::int8_at_least(2, from.1)];
        let later = [Key::int8_at_least(1, from.0.saturating_add(1))];
        Ok(self.each_tick_of(part, &same_epoch, false, &mut each)?
            || self.each_tick_of(part, &later, false, &mut each)?)
    }

    /// All ticks, oldest first, until `each` has enough (false).
    pub fn each_tick(&self, mut each: impl FnMut(Tick) -> Result<bool>) -> Result<()> {
        for part in &self.parts {
            if self.each_tick_of(part.part, &[], false, &mut each)? {
                break;
            }
        }
        Ok(())
    }

    /// The newest tick there is.
    pub fn newest_tick(&self) -> Result<Option<Tick>> {
        let mut found = None;
        for part in self.parts.iter().rev() {
            let is_found = self.each_tick_of(part.part, &[], true, &mut |tick| {
                found = Some(tick);
                Ok(false)
            })?;
            if is_found {
                break;
            }
        }
        Ok(found)
    }

    fn each_tick_of(
        &self,
        part: u32,
        keys: &[Key],
        backward: bool,
        each: &mut impl FnMut(Tick) -> Result<bool>,
    ) -> Result<bool> {
        let table = parts::read_ticks(part)?;
        let mut is_enough = false;
        let see = |row: Row<'_>| {
            is_enough = !each(Tick::read(row)?)?;
            Ok(!is_enough)
        };
        table.read_in_order(tick_index(part), keys, &self.snapshot, backward, see)?;
        Ok(is_enough)
    }
}
