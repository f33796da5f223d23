//! Rows read, and locked, in the order of an index.

use pgrx::pg_sys::{self, Oid};

use super::key::Key;
use super::{find, Table};
use crate::errors::Result;
use crate::pg::guard::guarded;
use crate::pg::snapshot::Snapshot;
use crate::pg::spi::{Row, Tid};
use crate::pg::{interrupts, major, transaction};

/// What `lock_in_order` found.
pub struct Locked<T> {
    pub rows: Vec<T>,
    /// Somebody else held rows before the last one, or has changed them since the snapshot.
    pub passed_over: bool,
    /// There were enough: behind the last one there may be more.
    pub is_enough: bool,
}

/// Whether a row is to be locked.
pub type Wants<'a> = &'a mut dyn FnMut(Row<'_>) -> bool;

/// What is asked about rows that are met, as the snapshot sees them: whether each is wanted, and about those that somebody else holds.
#[derive(Default)]
pub struct Asked<'a> {
    pub wants: Option<Wants<'a>>,
    pub held: Option<&'a mut dyn FnMut(Row<'_>)>,
}

/// How an attempt to lock the next row ended.
#[derive(PartialEq, Eq)]
enum RowLock {
    /// There is none.
    End,
    Locked,
    /// The row is not there any more.
    Gone,
    /// It is not wanted.
    Unwanted,
    /// Somebody else has changed it since the snapshot.
    Changed,
    /// Somebody else holds it.
    Held,
}

// Called within one guard for each row of which nothing is asked: three were 2 % of a batch.
extern "C-unwind" {
    fn index_getnext_slot(
        scan: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attributes: std::ffi::c_int);
}

/// What to scan an index with to find what `snapshot` sees, and whether that meets rows that it does not see. The server
/// remembers what a SERIALIZABLE transaction reads with a snapshot of a moment only (SerializationNeededForRead in predicate.c):
/// there the scan meets every version of a row, of which the snapshot sees one at most.
pub(super) fn scanned(snapshot: &Snapshot) -> (pg_sys::Snapshot, bool) {
    if transaction::is_serializable() {
        (&raw mut pg_sys::SnapshotAnyData, true)
    } else {
        (snapshot.raw(), false)
    }
}

impl Table {
    /// Locks rows FOR UPDATE in the order of an index, as `snapshot` sees them, until so many are enough; that is asked
    /// before each row. No predicate lock remembers it, as in `read_in_order`. `wants` says of each row as the snapshot sees it whether it is one of them.
    /// Rows that somebody else holds are skipped, and so are rows that were changed or removed since the
    /// snapshot: `held` is given each of those that somebody else holds, as the snapshot sees it, and none of the others. `take` is given each row while its page is pinned:
    /// what outlives the call is copied there.
    pub fn lock_in_order<T>(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        Asked {
            mut wants,
            mut held,
        }: Asked<'_>,
        are_enough: impl Fn(usize) -> bool,
        mut take: impl FnMut(Row<'_>, Tid) -> Result<T>,
    ) -> Result<Locked<T>> {
        let index = find(index)?;
        let mut found = Ok(Vec::new());
        let mut passed_over = false;
        let mut is_enough = false;
        let (scanned, is_any) = scanned(snapshot);
        // SAFETY: the protocol of an index scan (indexam.c) and of nodeLockRows.c; slots and scan are
        // ended here, and by the resource owner after an ERROR.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let scan = self.begin_scan(index, keys, scanned);
            let seen = pg_sys::table_slot_create(self.0, std::ptr::null_mut());
            let locked = pg_sys::table_slot_create(self.0, std::ptr::null_mut());
            while let Ok(rows) = &mut found {
                is_enough = are_enough(rows.len());
                if is_enough {
                    break;
                }
                let attempt = self.try_lock_next(scan, seen, &mut wants, snapshot, is_any, locked);
                if attempt == RowLock::End {
                    break;
                }
                passed_over |= matches!(attempt, RowLock::Held | RowLock::Changed);
                if let (RowLock::Held, Some(held)) = (&attempt, &mut held) {
                    held(Row::of_slot(seen));
                }
                if attempt == RowLock::Locked {
                    match take(Row::of_slot(locked), Tid::new((*seen).tts_tid)) {
                        Ok(row) => rows.push(row),
                        Err(error) => found = Err(error),
                    }
                } else if rows.is_empty() || attempt == RowLock::Unwanted {
                    // A queue with many rows held by others is a long walk.
                    interrupts::check();
                }
            }
            pg_sys::ExecDropSingleTupleTableSlot(locked);
            pg_sys::ExecDropSingleTupleTableSlot(seen);
            pg_sys::index_endscan(scan);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        found.map(|rows| Locked {
            rows,
            passed_over,
            is_enough,
        })
    }

    pub(super) unsafe fn begin_scan(
        &self,
        index: pg_sys::Relation,
        keys: &[Key],
        snapshot: pg_sys::Snapshot,
    ) -> pg_sys::IndexScanDesc {
        let mut conditions: Vec<pg_sys::ScanKeyData> = keys
            .iter()
            .map(|key| {
                let mut data = std::mem::zeroed();
                pg_sys::ScanKeyEntryInitialize(
                    &mut data,
                    0,
                    key.column,
                    key.strategy as pg_sys::StrategyNumber,
                    pg_sys::InvalidOid,
                    *(*index).rd_indcollation.add(key.column as usize - 1),
                    Oid::from(key.function),
                    key.value,
                );
                data
            })
            .collect();
        let count = conditions.len() as i32;
        let scan = major::begin_index_scan(self.0, index, snapshot, count);
        pg_sys::index_rescan(
            scan,
            conditions.as_mut_ptr(),
            count,
            std::ptr::null_mut(),
            0,
        );
        scan
    }

    /// Reads rows in the order of an index, or against it, as `snapshot` sees them, until `each` says that it
    /// has enough (false). No predicate lock remembers what a SERIALIZABLE transaction reads here, because tables and pages
    /// are those of all tenants: what a stranger writes beside it would make the transaction fail.
    pub fn read_in_order(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        backward: bool,
        mut each: impl FnMut(Row<'_>) -> Result<bool>,
    ) -> Result<()> {
        self.walk(index, keys, snapshot, backward, |row, _| each(row))
    }

    /// The same, with the place of each row.
    pub(super) fn walk(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        backward: bool,
        mut each: impl FnMut(Row<'_>, Tid) -> Result<bool>,
    ) -> Result<()> {
        let scanned = scanned(snapshot);
        self.walk_versions(
            index,
            keys,
            snapshot,
            backward,
            scanned,
            |row, tid, is_seen| Ok(!is_seen || each(row, tid)?),
        )
    }

    /// The same with the versions of rows that the snapshot does not see too; of each is said whether it does.
    pub fn read_versions(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        mut each: impl FnMut(Row<'_>, bool) -> Result<bool>,
    ) -> Result<()> {
        let scanned = (&raw mut pg_sys::SnapshotAnyData, true);
        self.walk_versions(index, keys, snapshot, false, scanned, |row, _, is_seen| {
            each(row, is_seen)
        })
    }

    fn walk_versions(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        backward: bool,
        (scanned, is_any): (pg_sys::Snapshot, bool),
        mut each: impl FnMut(Row<'_>, Tid, bool) -> Result<bool>,
    ) -> Result<()> {
        let index = find(index)?;
        let direction = if backward {
            pg_sys::ScanDirection::BackwardScanDirection
        } else {
            pg_sys::ScanDirection::ForwardScanDirection
        };
        let mut outcome = Ok(true);
        // SAFETY: the protocol of an index scan (indexam.c); ended here, and by the resource owner after an
        // ERROR. The tuple is the slot's, which keeps its page pinned while `each` reads it.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let scan = self.begin_scan(index, keys, scanned);
            let seen = pg_sys::table_slot_create(self.0, std::ptr::null_mut());
            while matches!(outcome, Ok(true)) && pg_sys::index_getnext_slot(scan, direction, seen) {
                let is_seen = !is_any || self.is_seen(seen, snapshot);
                pg_sys::slot_getsomeattrs_int(seen, (*(*self.0).rd_att).natts);
                outcome = each(Row::of_slot(seen), Tid::new((*seen).tts_tid), is_seen);
                interrupts::check();
            }
            pg_sys::ExecDropSingleTupleTableSlot(seen);
            pg_sys::index_endscan(scan);
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        }
        outcome.map(|_| ())
    }

    /// Whether the snapshot sees the version of a row that a scan has met.
    ///
    /// # Safety
    /// The slot has a row of this table.
    pub(super) unsafe fn is_seen(
        &self,
        met: *mut pg_sys::TupleTableSlot,
        snapshot: &Snapshot,
    ) -> bool {
        let satisfies = (*(*self.0).rd_tableam)
            .tuple_satisfies_snapshot
            .expect("every table access method has it");
        let (relation, snapshot) = (self.0, snapshot.raw());
        guarded(|| satisfies(relation, met, snapshot))
    }

    /// Goes on to the next row, in `seen`, and locks it, in `locked`.
    unsafe fn try_lock_next(
        &self,
        scan: pg_sys::IndexScanDesc,
        seen: *mut pg_sys::TupleTableSlot,
        wants: &mut Option<Wants<'_>>,
        snapshot: &Snapshot,
        is_any: bool,
        locked: *mut pg_sys::TupleTableSlot,
    ) -> RowLock {
        let lock = (*(*self.0).rd_tableam)
            .tuple_lock
            .expect("every table access method has it");
        let (relation, raw) = (self.0, snapshot.raw());
        let command = pg_sys::GetCurrentCommandId(false);
        let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
        let failure = &mut failure;
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        let is_asked = is_any || wants.is_some();
        if is_asked {
            let is_there = guarded(|| {
                let is_there = index_getnext_slot(scan, forward, seen);
                if is_there {
                    slot_getsomeattrs_int(seen, (*(*relation).rd_att).natts);
                }
                is_there
            });
            if !is_there {
                return RowLock::End;
            }
            // Outside of the guard: one has a guard of its own, the other is any code of ours.
            let is_wanted = (!is_any || self.is_seen(seen, snapshot))
                && wants.as_mut().is_none_or(|wants| wants(Row::of_slot(seen)));
            if !is_wanted {
                return RowLock::Unwanted;
            }
        }
        guarded(|| {
            if !is_asked && !index_getnext_slot(scan, forward, seen) {
                return RowLock::End;
            }
            let result = lock(
                relation,
                &mut (*seen).tts_tid,
                raw,
                locked,
                command,
                pg_sys::LockTupleMode::LockTupleExclusive,
                pg_sys::LockWaitPolicy::LockWaitSkip,
                0,
                failure,
            );
            match result {
                pg_sys::TM_Result::TM_Ok => {
                    // All columns at once: one by one each walks over those before it (6 % of a batch).
                    slot_getsomeattrs_int(locked, (*(*relation).rd_att).natts);
                    RowLock::Locked
                }
                pg_sys::TM_Result::TM_Deleted => RowLock::Gone,
                pg_sys::TM_Result::TM_Updated => RowLock::Changed,
                _ => {
                    slot_getsomeattrs_int(seen, (*(*relation).rd_att).natts);
                    RowLock::Held
                }
            }
        })
    }
}
