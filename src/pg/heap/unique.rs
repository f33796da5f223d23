//! Rows inserted unless a unique index has one like them, whatever snapshot the transaction has.

use pgrx::pg_sys;

use super::append::{insert_speculatively, Slots};
use super::{advance_command, find, Key, Table};
use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::{major, prepared_wait};

/// The keys of a row in a unique index, and what waits where another transaction has inserted one of them.
pub struct Unique<'a> {
    pub index: &'static str,
    pub keys: &'a [Key],
    pub what: &'a dyn Fn() -> String,
}

/// What a unique index has of some keys, transactions that are open among it.
enum Occupied {
    Free,
    /// By these, which are open: the numbers of their top levels; none: for good.
    By(Vec<u32>),
}

impl Table {
    /// Inserts a row and its index entries; false where a unique index has such a row already, after whoever is inserting
    /// one: where that is a prepared transaction, the wait names it. As INSERT … ON CONFLICT DO NOTHING, which fails where the
    /// transaction's snapshot does not see that row, and looks into each unique index before. `unique`: the only one that may have one.
    pub fn insert_unless_there(&self, row: &[Answer], unique: Option<&Unique<'_>>) -> Result<bool> {
        // SAFETY: what nodeModifyTable.c does for ON CONFLICT DO NOTHING. All is allocated in the current memory context and
        // in the executor state, freed here, and after an ERROR by the abort and the resource owner.
        let inserted = unsafe {
            let state = pg_sys::CreateExecutorState();
            let info = self.open_indexes(true);
            let mut slots = Slots::new(self.raw());
            slots.fill(std::iter::once(row));
            let slot = slots.filled()[0];
            let (mut only, mut is_said) = (unique, false);
            let inserted = loop {
                pg_sys::check_for_interrupts!();
                let occupied = only.map(|unique| self.look_who_has(unique)).transpose()?;
                if let (Some(Occupied::By(xids)), Some(unique)) = (&occupied, unique) {
                    if !xids.is_empty() && !std::mem::replace(&mut is_said, true) {
                        prepared_wait::say_which(&(unique.what)(), "has enqueued it", xids)?;
                    }
                }
                // Waits for who is inserting one.
                let is_free = matches!(occupied, Some(Occupied::Free))
                    || major::is_free_in_indexes(info, slot, state);
                if !is_free {
                    break false;
                }
                if insert_speculatively(self.raw(), info, slot, state) {
                    break true;
                }
                only = None;
            };
            slots.free();
            pg_sys::ExecCloseIndices(info);
            pg_sys::FreeExecutorState(state);
            pg_sys::pfree(info.cast());
            inserted
        };
        advance_command();
        Ok(inserted)
    }

    fn look_who_has(&self, unique: &Unique<'_>) -> Result<Occupied> {
        let index = find(unique.index)?;
        let mut dirty = pg_sys::SnapshotData {
            snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY,
            ..Default::default()
        };
        // SAFETY: as in `read_present`; such a snapshot says of each row that it sees who is inserting or deleting it (snapmgr.h), and
        // lives as long as the scan. Only of a transaction that is open is it asked whose part it is.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let scan = self.begin_scan(index, unique.keys, &raw mut dirty);
            let seen = pg_sys::table_slot_create(self.raw(), std::ptr::null_mut());
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let is_there = pg_sys::index_getnext_slot(scan, forward, seen);
            pg_sys::ExecDropSingleTupleTableSlot(seen);
            pg_sys::index_endscan(scan);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
            if !is_there {
                return Ok(Occupied::Free);
            }
            let mut xids = vec![dirty.xmin, dirty.xmax];
            xids.retain(|xid| pg_sys::TransactionIdIsInProgress(*xid));
            let tops = xids
                .into_iter()
                .map(|xid| pg_sys::SubTransGetTopmostTransaction(xid));
            Ok(Occupied::By(tops.map(u32::from).collect()))
        }
    }
}
