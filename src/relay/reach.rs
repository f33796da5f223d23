//! How far readers may have come in a part: what they lose when it goes.

use super::worker::Relay;
use crate::errors::Result;
use crate::log::parts::{self, tick_index, PARTS};
use crate::log::state::{self, State};
use crate::log::tick::Tick;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{snapshot, BuiltinOid};
use crate::shared;
use pushy_core::log::cursor::Cursor;

static LOSE: Plan = Plan::new(
    "UPDATE pushy_internal.log_state SET lost_epoch = $1, lost_tick = $2, lost_n = $3",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
    ],
);

fn reached(reach: &mut [Cursor], written_in: u32, tick: &Tick) {
    for (part, last) in reach.iter_mut().enumerate() {
        if part as u32 == written_in || tick.parts & (1 << part) != 0 {
            *last = (*last).max(tick.last());
        }
    }
}

impl Relay {
    /// Writes down that what lies in a part is lost to readers; answers up to where.
    pub(super) fn lose(&mut self, part: u32) -> Result<Cursor> {
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
        for used in &state.parts {
            let table = parts::read_ticks(used.part)?;
            let index = tick_index(used.part);
            table.read_in_order(index, &[], &snapshot, false, |row| {
                reached(&mut reach, used.part, &Tick::read(row)?);
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

    /// A part was emptied.
    pub(super) fn forget_reach(&mut self, part: u32) {
        shared::expect().uncharge_log(self.database_slot.oid(), part);
        if let Some(reach) = &mut self.reach {
            reach[part as usize] = Cursor::START;
        }
    }
}
