//! The word that notices of a transaction are in no log, because that was full or no relay could come: one row without a
//! channel, of the transaction itself, so that it is met when that has committed, however long it was open or prepared, and
//! whatever becomes of the server meanwhile. What follows from it is in `pushy_core::log::gap`.

use std::cell::Cell;

use pushy_core::log::written::Written;

use super::current_part::{current_part, note_size};
use crate::errors::Result;
use crate::log::log_snapshot::LogSnapshot;
use crate::log::parts;
use crate::params;
use crate::pg::heap::Table;
use crate::pg::per_process::PerProcess;
use crate::pg::{database, identity, transaction};
use crate::shared::{self, pending};

/// One stands in the log, and none that is in no tick can get into one while this server runs, because it has no shared memory and
/// so no relay.
static STANDS_FOR_LONG: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Leaves a marker, unless one stands that has committed and that the relay has not met. Just before the commit.
#[cold]
pub fn leave_marker() -> Result<()> {
    identity::as_owner(leave)
}

fn leave() -> Result<()> {
    // First: the relay waits for who may have found the gap open, by their numbers.
    let (xid, own_xid) = transaction::my_xids();
    let database_slot =
        shared::get().and_then(|shared| shared.ensure_database(database::current()));
    let gap = match database_slot {
        Some(slot) => match slot.log.join_gap() {
            None => return Ok(()),
            gap => gap,
        },
        None if STANDS_FOR_LONG.get() => return Ok(()),
        None => None,
    };
    let part = current_part(database_slot)?;
    let table = parts::open_log(part)?;
    if database_slot.is_none() && stands(&table)? {
        STANDS_FOR_LONG.set(shared::get().is_none());
        return Ok(());
    }
    let position = transaction::wal_position();
    let row = *params![
        xid as i64,
        position,
        None::<i64>,
        None::<i16>,
        false,
        b"".as_slice(),
        b"".as_slice(),
        None::<&[u8]>,
    ];
    table.append_placed(&[row], |run| {
        let Some((shared, database_slot)) = shared::get().zip(database_slot) else {
            return;
        };
        let written = Written {
            part: part as u8,
            block: run.block,
            first: run.first,
            count: run.count,
            xid,
            own_xid,
            position,
            is_marker: true,
            about: None,
        };
        shared.announce_written(database_slot, &written);
        note_size(database_slot, part, run.block);
    });
    if let Some(gap) = gap {
        pending::left_marker(gap);
    }
    Ok(())
}

/// Whether a row of the log is one.
pub fn is_marker(channel: &[u8]) -> bool {
    channel.is_empty()
}

/// Whether the last page, to which nothing but markers is added while the log is full, has one that has committed and is in no
/// tick. For a database without a place in shared memory, which has no relay.
fn stands(table: &Table) -> Result<bool> {
    let log = LogSnapshot::take()?;
    let newest = log.newest_tick()?;
    let seen = newest.and_then(|tick| tick.seen()).or(log.seen.clone());
    let seen = seen.unwrap_or_default();
    let mut stands = false;
    table.scan_last_page(|met| {
        let channel = met.row.opt_bytes(parts::log::CHANNEL).unwrap_or_default();
        let xid = met.row.i64(parts::log::XID) as u64;
        stands |= is_marker(&channel)
            && !seen.is_over(xid)
            && xid != transaction::xid()
            && transaction::has_committed(met.xmin);
        Ok(())
    })?;
    Ok(stands)
}
