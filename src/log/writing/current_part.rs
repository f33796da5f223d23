//! The part of the log that writers append to, and how far it has grown.

use std::sync::atomic::Ordering;

use crate::errors::Result;
use crate::log::{parts, state};
use crate::pg::heap::Table;
use crate::pg::size;
use crate::settings;
use crate::shared::database::DatabaseSlot;

/// The part that writers append to: from shared memory, or from the table when nobody has looked yet.
pub(super) fn current_part(database_slot: Option<&DatabaseSlot>) -> Result<u32> {
    if let Some(part) = database_slot.and_then(|database_slot| database_slot.log.part()) {
        return Ok(part);
    }
    let state = state::read()?;
    if let Some(database_slot) = database_slot {
        database_slot.log.learn_part(state.part, state.blocks());
    }
    Ok(state.part)
}

/// Whether the part may grow. The last writer has noted whether it is full. Only then the file's size is asked, which takes
/// a system call, because the limit may have changed.
pub(super) fn may_grow(database_slot: Option<&DatabaseSlot>, part: u32, table: &Table) -> bool {
    let Some(database_slot) = database_slot else {
        return !is_full(table.blocks(), 0);
    };
    if database_slot.log.is_full(part) && !is_full(table.blocks(), database_slot.log.blocks()) {
        database_slot.log.clear_full();
    }
    !database_slot.log.is_full(part)
}

/// Notes for the relay, and for other writers, how far the part has come.
pub(super) fn note_size(database_slot: &DatabaseSlot, part: u32, last: u32) {
    let blocks = last + 1;
    let before = database_slot.log.blocks();
    if is_big(blocks, before) {
        database_slot.log.is_crowded.store(true, Ordering::SeqCst);
    }
    if is_full(blocks, before) {
        database_slot.log.set_full(part);
    }
}

/// A part that holds its share of what the log may: another should take over. `before`: the pages that it had when it was
/// opened; while it is no bigger there is room between its rows.
pub fn is_big(blocks: u32, before: u32) -> bool {
    blocks > before && i64::from(blocks) * size::PAGE >= settings::log_max_size() / parts::SHARE
}

/// A part as big as the whole log may be: the relay could not turn to another one. Writers are never blocked; whose events
/// find no room leaves a marker (`gap`), and all readers get a resync.
pub fn is_full(blocks: u32, before: u32) -> bool {
    blocks > before && i64::from(blocks) * size::PAGE >= settings::log_max_size()
}
