//! Rows found one after the other by a unique index, with the table, the index and the snapshot of one look.

use pgrx::pg_sys;

use super::key::Key;
use super::{find, Table};
use crate::errors::Result;
use crate::pg::guard::guarded;
use crate::pg::snapshot::{self, Snapshot};
use crate::pg::spi::{Row, Tid};

/// Looks into one unique index of a table, whose rows are those of the moment when it was made. No predicate lock remembers what it reads:
/// [`Table::read_in_order`].
pub struct Finder<'table> {
    table: &'table Table,
    index: pg_sys::Relation,
    scan: pg_sys::IndexScanDesc,
    seen: *mut pg_sys::TupleTableSlot,
    locked: *mut pg_sys::TupleTableSlot,
    snapshot: Snapshot,
    /// The scan meets rows that the snapshot does not see.
    is_any: bool,
}

impl Table {
    /// Of an index with one column, a bigint.
    pub fn finder(&self, index: &str) -> Result<Finder<'_>> {
        let index = find(index)?;
        let snapshot = snapshot::take_latest();
        let (scanned, is_any) = super::scan::scanned(&snapshot);
        // SAFETY: the protocol of an index scan (indexam.c); ended by Drop, and by the resource owner after an ERROR.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            Ok(Finder {
                table: self,
                index,
                scan: self.begin_scan(index, &[Key::int8_equals(1, 0)], scanned),
                seen: pg_sys::table_slot_create(self.raw(), std::ptr::null_mut()),
                locked: pg_sys::table_slot_create(self.raw(), std::ptr::null_mut()),
                snapshot,
                is_any,
            })
        }
    }
}

// Called within one guard.
extern "C-unwind" {
    fn index_rescan(
        scan: pg_sys::IndexScanDesc,
        keys: pg_sys::ScanKey,
        count: std::ffi::c_int,
        orders: pg_sys::ScanKey,
        order_count: std::ffi::c_int,
    );
    fn index_getnext_slot(
        scan: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attributes: std::ffi::c_int);
}

impl Finder<'_> {
    /// The row of this key.
    pub fn find<T>(
        &mut self,
        key: i64,
        take: impl FnOnce(Row<'_>, Tid) -> Result<T>,
    ) -> Result<Option<T>> {
        if !self.go_to(key) {
            return Ok(None);
        }
        // SAFETY: the slot has the row, and keeps its page pinned while `take` reads it.
        let (row, place) = unsafe { (Row::of_slot(self.seen), Tid::new((*self.seen).tts_tid)) };
        take(row, place).map(Some)
    }

    /// The same, with the row locked FOR UPDATE until the transaction, or savepoint, ends. None also where somebody holds it, or has changed it
    /// since the look: [`Table::lock_now`] says which.
    pub fn lock<T>(
        &mut self,
        key: i64,
        take: impl FnOnce(Row<'_>, Tid) -> Result<T>,
    ) -> Result<Option<T>> {
        if !self.go_to(key) {
            return Ok(None);
        }
        // SAFETY: the slot has the row.
        let place = unsafe { Tid::new((*self.seen).tts_tid) };
        let update = pg_sys::LockTupleMode::LockTupleExclusive;
        let skip = pg_sys::LockWaitPolicy::LockWaitSkip;
        if self.table.lock_at(place, update, skip, self.locked) != pg_sys::TM_Result::TM_Ok {
            return Ok(None);
        }
        // SAFETY: the slot has the row that was locked.
        unsafe { pg_sys::slot_getsomeattrs_int(self.locked, self.columns()) };
        take(Row::of_slot(self.locked), place).map(Some)
    }

    /// Whether the row that was found at this place is still the newest, committed or this transaction's own.
    pub fn is_as_found(&mut self, place: Tid) -> bool {
        let mut tid = place.raw();
        // SAFETY: a row was there, and no vacuum takes what the snapshot sees. Not remembered of a SERIALIZABLE transaction, because the snapshot
        // is none of a moment.
        unsafe {
            let fetch = (*(*self.table.raw()).rd_tableam)
                .tuple_fetch_row_version
                .expect("every table access method has it");
            let (relation, slot, tid) = (self.table.raw(), self.seen, &mut tid);
            guarded(|| fetch(relation, tid, &raw mut pg_sys::SnapshotSelfData, slot))
        }
    }

    fn columns(&self) -> i32 {
        // SAFETY: open.
        unsafe { (*(*self.table.raw()).rd_att).natts }
    }

    /// Whether there is one, in `seen` then.
    fn go_to(&mut self, key: i64) -> bool {
        let (scan, seen, columns) = (self.scan, self.seen, self.columns());
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        // SAFETY: the scan has one key, a bigint; the rest is that of any scan of an index.
        unsafe {
            (*(*scan).keyData).sk_argument = pg_sys::Datum::from(key);
            let keys = (*scan).keyData;
            guarded(|| index_rescan(scan, keys, 1, std::ptr::null_mut(), 0));
            loop {
                // Bounded: by the versions of one row.
                let is_there = guarded(|| {
                    let is_there = index_getnext_slot(scan, forward, seen);
                    if is_there {
                        slot_getsomeattrs_int(seen, columns);
                    }
                    is_there
                });
                if !is_there || !self.is_any || self.table.is_seen(seen, &self.snapshot) {
                    return is_there;
                }
            }
        }
    }
}

impl Drop for Finder<'_> {
    fn drop(&mut self) {
        // After an ERROR the resource owner lets go of it.
        if !std::thread::panicking() {
            // SAFETY: made by finder(), in the same resource owner.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.locked);
                pg_sys::ExecDropSingleTupleTableSlot(self.seen);
                pg_sys::index_endscan(self.scan);
                pg_sys::index_close(self.index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            }
        }
    }
}
