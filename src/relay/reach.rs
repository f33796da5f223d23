//! How far readers may have come in a part: what they lose when it goes.

use super::worker::Relay;
use crate::errors::Result;
use crate::log::log_snapshot::LogSnapshot;
use crate::log::parts::PARTS;
use crate::log::tick::Tick;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;
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

/// For each part the last tick that is lost when the part is emptied: the tick is stored in it, or some of its
/// events are.
fn find_reach(log: &LogSnapshot) -> Result<Vec<Cursor>> {
    let mut reach = vec![Cursor::START; PARTS as usize];
    for used in &log.parts {
        log.each_tick_from(used.part, (0, 0), |tick| {
            reached(&mut reach, used.part, &tick);
            Ok(true)
        })?;
    }
    Ok(reach)
}

impl Relay {
    /// Writes down that what lies in a part is lost to readers; answers up to where.
    pub(super) fn lose(&mut self, part: u32) -> Result<Cursor> {
        let log = LogSnapshot::take()?;
        if self.reach.is_none() {
            self.reach = Some(find_reach(&log)?);
        }
        let reach = self
            .reach
            .as_ref()
            .map_or(Cursor::START, |reach| reach[part as usize]);
        let lost = log.lost.max(reach);
        spi::run(&LOSE, params![lost.epoch, lost.tick, lost.n]);
        self.write_down_here();
        Ok(lost)
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
