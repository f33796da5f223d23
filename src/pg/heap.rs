//! Rows of Pushy's own tables without parser and planner: for what happens once per job.
//!
//! A plan is made for the table as it is then: one made while the table was small reads all of it, dead
//! rows included, when it has grown. Here the access path is the code. No rights are checked: the tables
//! are ours, and have neither triggers, rules nor policies.

use std::ffi::CStr;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::pg_sys::{self, Datum, Oid};

use super::function::Answer;
use super::identity;
use super::snapshot::Snapshot;
use super::spi::{Row, Tid};
use crate::errors::{Error, Result, SqlState};

/// A table of schema pushy, open until the transaction ends.
pub struct Table(pg_sys::Relation);

/// Opens a table for writing.
pub fn open(name: &str) -> Result<Table> {
    let oid = find(name)?;
    // SAFETY: an existing table; the lock is kept until the transaction ends.
    Ok(Table(unsafe {
        pg_sys::table_open(oid, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE)
    }))
}

/// A table open for reading, and locked against being emptied, until it is dropped.
pub struct ForReading {
    table: Option<Table>,
    oid: Oid,
}

const READ_LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

pub fn open_for_reading(name: &str) -> Result<ForReading> {
    let oid = find(name)?;
    // SAFETY: an existing table; closed and unlocked by Drop.
    let table = Table(unsafe { pg_sys::table_open(oid, READ_LOCK) });
    Ok(ForReading {
        table: Some(table),
        oid,
    })
}

impl std::ops::Deref for ForReading {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.table.as_ref().expect("open until dropped")
    }
}

impl Drop for ForReading {
    fn drop(&mut self) {
        self.table = None;
        // After an ERROR the abort lets go of it.
        if !std::thread::panicking() {
            // SAFETY: taken when it was opened.
            unsafe { pg_sys::UnlockRelationOid(self.oid, READ_LOCK) }
        }
    }
}

fn find(name: &str) -> Result<Oid> {
    identity::pushy_relation(name).ok_or_else(|| {
        Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("relation pushy.{name} does not exist"),
        )
        .hint("Run: CREATE EXTENSION pushy")
    })
}

impl Drop for Table {
    fn drop(&mut self) {
        // After an ERROR the resource owner lets go of it.
        if !std::thread::panicking() {
            // SAFETY: opened by open(), in the same resource owner; the lock stays.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

/// A condition on a column of an index (from 1): how it compares, by which function, with what.
pub struct Key {
    column: i16,
    strategy: u32,
    function: u32,
    value: Datum,
}

impl Key {
    pub fn int2_equals(column: i16, value: i16) -> Self {
        Self {
            column,
            strategy: pg_sys::BTEqualStrategyNumber,
            function: pg_sys::F_INT2EQ,
            value: Datum::from(value),
        }
    }

    pub fn int4_equals(column: i16, value: i32) -> Self {
        Self {
            column,
            strategy: pg_sys::BTEqualStrategyNumber,
            function: pg_sys::F_INT4EQ,
            value: Datum::from(value),
        }
    }

    pub fn int8_equals(column: i16, value: i64) -> Self {
        Self {
            column,
            strategy: pg_sys::BTEqualStrategyNumber,
            function: pg_sys::F_INT8EQ,
            value: Datum::from(value),
        }
    }

    pub fn int8_at_least(column: i16, value: i64) -> Self {
        Self {
            column,
            strategy: pg_sys::BTGreaterEqualStrategyNumber,
            function: pg_sys::F_INT8GE,
            value: Datum::from(value),
        }
    }

    pub fn int8_below(column: i16, value: i64) -> Self {
        Self {
            column,
            strategy: pg_sys::BTLessStrategyNumber,
            function: pg_sys::F_INT8LT,
            value: Datum::from(value),
        }
    }
}

impl Table {
    /// Locks up to `most` rows FOR UPDATE in the order of an index, as `snapshot` sees them. Rows that
    /// somebody else holds are skipped, and so are rows that were changed or removed since the snapshot:
    /// whoever changed them announces what they are now. `take` is given each row while its page is pinned:
    /// what outlives the call is copied there.
    pub fn lock_in_order<T>(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        most: usize,
        mut take: impl FnMut(Row<'_>, Tid) -> Result<T>,
    ) -> Result<Vec<T>> {
        let index = find(index)?;
        let mut found = Ok(Vec::with_capacity(most.min(256)));
        // SAFETY: the protocol of an index scan (indexam.c) and of nodeLockRows.c; slots and scan are
        // ended here, and by the resource owner after an ERROR.
        unsafe {
            let index = pg_sys::index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
            let scan = self.begin_scan(index, keys, snapshot);
            let seen = pg_sys::table_slot_create(self.0, std::ptr::null_mut());
            let locked = pg_sys::table_slot_create(self.0, std::ptr::null_mut());
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            while let Ok(rows) = &mut found {
                if rows.len() >= most || !pg_sys::index_getnext_slot(scan, forward, seen) {
                    break;
                }
                if self.try_lock(&mut (*seen).tts_tid, snapshot, locked) {
                    // All columns at once: one by one each walks over those before it (6 % of a batch).
                    pg_sys::slot_getsomeattrs_int(locked, (*(*self.0).rd_att).natts);
                    match take(Row::of_slot(locked), Tid::new((*seen).tts_tid)) {
                        Ok(row) => rows.push(row),
                        Err(error) => found = Err(error),
                    }
                } else if rows.is_empty() {
                    // A queue with many rows held by others is a long walk.
                    super::interrupts::check();
                }
            }
            pg_sys::ExecDropSingleTupleTableSlot(locked);
            pg_sys::ExecDropSingleTupleTableSlot(seen);
            pg_sys::index_endscan(scan);
            pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        found
    }

    unsafe fn begin_scan(
        &self,
        index: pg_sys::Relation,
        keys: &[Key],
        snapshot: &Snapshot,
    ) -> pg_sys::IndexScanDesc {
        let mut conditions: Vec<pg_sys::ScanKeyData> = keys
            .iter()
            .map(|key| {
                let mut data = std::mem::zeroed();
                pg_sys::ScanKeyInit(
                    &mut data,
                    key.column,
                    key.strategy as pg_sys::StrategyNumber,
                    Oid::from(key.function),
                    key.value,
                );
                data
            })
            .collect();
        let count = conditions.len() as i32;
        #[cfg(not(feature = "pg18"))]
        let scan = pg_sys::index_beginscan(self.0, index, snapshot.raw(), count, 0);
        #[cfg(feature = "pg18")]
        let scan = pg_sys::index_beginscan(
            self.0,
            index,
            snapshot.raw(),
            std::ptr::null_mut(),
            count,
            0,
        );
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
    /// has enough (false).
    pub fn read_in_order(
        &self,
        index: &str,
        keys: &[Key],
        snapshot: &Snapshot,
        backward: bool,
        mut each: impl FnMut(Row<'_>) -> Result<bool>,
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
            let scan = self.begin_scan(index, keys, snapshot);
            let seen = pg_sys::table_slot_create(self.0, std::ptr::null_mut());
            while matches!(outcome, Ok(true)) && pg_sys::index_getnext_slot(scan, direction, seen) {
                pg_sys::slot_getsomeattrs_int(seen, (*(*self.0).rd_att).natts);
                outcome = each(Row::of_slot(seen));
                super::interrupts::check();
            }
            pg_sys::ExecDropSingleTupleTableSlot(seen);
            pg_sys::index_endscan(scan);
            pg_sys::index_close(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        }
        outcome.map(|_| ())
    }

    pub(super) fn raw(&self) -> pg_sys::Relation {
        self.0
    }

    unsafe fn try_lock(
        &self,
        tid: pg_sys::ItemPointer,
        snapshot: &Snapshot,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool {
        let lock = (*(*self.0).rd_tableam)
            .tuple_lock
            .expect("every table access method has it");
        let (relation, snapshot) = (self.0, snapshot.raw());
        let command = pg_sys::GetCurrentCommandId(false);
        let mut failure: pg_sys::TM_FailureData = std::mem::zeroed();
        let failure = &mut failure;
        // A function pointer of the server: its errors must not jump over our frames.
        let result = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            lock(
                relation,
                tid,
                snapshot,
                slot,
                command,
                pg_sys::LockTupleMode::LockTupleExclusive,
                pg_sys::LockWaitPolicy::LockWaitSkip,
                0,
                failure,
            )
        });
        result == pg_sys::TM_Result::TM_Ok
    }

    /// Deletes rows that this transaction has locked.
    pub fn delete(&self, rows: impl Iterator<Item = Tid>) {
        for row in rows {
            let mut tid = row.raw();
            // SAFETY: a row of this table, locked by us: nobody can have changed it.
            unsafe { pg_sys::simple_heap_delete(self.0, &mut tid) }
        }
    }

    /// Appends rows, as wide as the table, and their index entries. Constraints are the caller's to keep;
    /// a unique index still refuses. The rows are visible to the next command.
    pub fn append<R: AsRef<[Answer]>>(&self, rows: impl Iterator<Item = R>) {
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return;
        }
        // SAFETY: what COPY does (copyfrom.c): rows first, a bounded number at once, then their index
        // entries. All is allocated in the current memory context and in the executor state, freed here.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let info =
                pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(info, self.0, 0, std::ptr::null_mut(), 0);
            pg_sys::ExecOpenIndices(info, false);
            let mut slots = Slots::new((*self.0).rd_att);
            while rows.peek().is_some() {
                slots.fill(rows.by_ref().take(MOST_AT_ONCE));
                self.append_some(&mut slots, info, state);
                super::interrupts::check();
            }
            slots.free();
            pg_sys::ExecCloseIndices(info);
            pg_sys::FreeExecutorState(state);
            pg_sys::pfree(info.cast());
        }
        advance_command();
    }

    unsafe fn append_some(
        &self,
        slots: &mut Slots,
        info: *mut pg_sys::ResultRelInfo,
        state: *mut pg_sys::EState,
    ) {
        pg_sys::heap_multi_insert(
            self.0,
            slots.slots.as_mut_ptr(),
            slots.filled as i32,
            pg_sys::GetCurrentCommandId(true),
            0,
            std::ptr::null_mut(),
        );
        for slot in &slots.slots[..slots.filled] {
            insert_index_entries(info, *slot, state);
        }
        let per_row = (*state).es_per_tuple_exprcontext;
        if !per_row.is_null() {
            pg_sys::MemoryContextReset((*per_row).ecxt_per_tuple_memory);
        }
    }
}

/// Rows that `append` holds in memory at a time: a few pages.
const MOST_AT_ONCE: usize = 128;

/// Slots with rows to be written, used again for the next rows.
pub(super) struct Slots {
    /// The table's, without a reference count: that of a shared one is kept once per slot, by a resource
    /// owner (5 % of a batch).
    desc: pg_sys::TupleDesc,
    width: usize,
    slots: Vec<*mut pg_sys::TupleTableSlot>,
    filled: usize,
    values: Vec<Datum>,
    nulls: Vec<bool>,
}

// Called within one guard for many rows, which a guard each would cost as much as the calls.
extern "C-unwind" {
    fn heap_form_tuple(
        desc: pg_sys::TupleDesc,
        values: *mut Datum,
        nulls: *mut bool,
    ) -> pg_sys::HeapTuple;
    fn MakeTupleTableSlot(
        desc: pg_sys::TupleDesc,
        ops: *const pg_sys::TupleTableSlotOps,
    ) -> *mut pg_sys::TupleTableSlot;
    fn ExecStoreHeapTuple(
        tuple: pg_sys::HeapTuple,
        slot: *mut pg_sys::TupleTableSlot,
        free: bool,
    ) -> *mut pg_sys::TupleTableSlot;
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
}

impl Slots {
    pub(super) unsafe fn new(desc: pg_sys::TupleDesc) -> Self {
        Self {
            desc: pg_sys::CreateTupleDescCopy(desc),
            width: (*desc).natts as usize,
            slots: Vec::new(),
            filled: 0,
            values: Vec::new(),
            nulls: Vec::new(),
        }
    }

    pub(super) unsafe fn fill<R: AsRef<[Answer]>>(&mut self, rows: impl Iterator<Item = R>) {
        self.values.clear();
        self.nulls.clear();
        self.filled = 0;
        for row in rows {
            let row = row.as_ref();
            assert_eq!(self.width, row.len());
            for value in row {
                let (datum, null) = value.value_and_null();
                self.values.push(datum);
                self.nulls.push(null);
            }
            self.filled += 1;
        }
        if self.slots.len() < self.filled {
            self.slots.resize(self.filled, std::ptr::null_mut());
        }
        let (desc, width) = (self.desc, self.width);
        let (mut values, mut nulls) = (self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
        let slots = &mut self.slots[..self.filled];
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            for slot in slots {
                if slot.is_null() {
                    *slot = MakeTupleTableSlot(desc, &raw const pg_sys::TTSOpsHeapTuple);
                }
                // Given to the slot, which frees it when the next comes.
                ExecStoreHeapTuple(heap_form_tuple(desc, values, nulls), *slot, true);
                values = values.add(width);
                nulls = nulls.add(width);
            }
        });
    }

    /// The slots that were filled last.
    pub(super) fn filled(&mut self) -> &mut [*mut pg_sys::TupleTableSlot] {
        &mut self.slots[..self.filled]
    }

    pub(super) unsafe fn free(self) {
        let slots = &self.slots;
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            for slot in slots {
                ExecDropSingleTupleTableSlot(*slot);
            }
        });
        pg_sys::FreeTupleDesc(self.desc);
    }
}

unsafe fn insert_index_entries(
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    let (none, no_arbiters) = (std::ptr::null_mut(), std::ptr::null_mut());
    #[cfg(feature = "pg13")]
    {
        (*state).es_result_relation_info = info;
        pg_sys::ExecInsertIndexTuples(slot, state, false, none, no_arbiters);
    }
    #[cfg(any(feature = "pg14", feature = "pg15"))]
    pg_sys::ExecInsertIndexTuples(info, slot, state, false, false, none, no_arbiters);
    #[cfg(not(any(feature = "pg13", feature = "pg14", feature = "pg15")))]
    pg_sys::ExecInsertIndexTuples(info, slot, state, false, false, none, no_arbiters, false);
}

/// Makes what this transaction has just written visible to its next statement.
pub fn advance_command() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// Whether a table has exactly the columns that the code was written for: not so with an old script and a
/// new library, or the other way round. Looked at once per process and table (an upgrade restarts the
/// workers); `checked` keeps the table's OID.
pub fn check_columns(table: &Table, names: &[&str], checked: &AtomicU32) -> Result<()> {
    // SAFETY: the descriptor and its attributes live as long as the table is open.
    let (oid, fits) = unsafe {
        let oid = (*table.0).rd_id.to_u32();
        if checked.load(Ordering::Relaxed) == oid {
            return Ok(());
        }
        let count = (*(*table.0).rd_att).natts as usize;
        let fits = count == names.len()
            && names.iter().enumerate().all(|(at, name)| {
                let attribute = pg_sys::get_attname((*table.0).rd_id, at as i16 + 1, true);
                !attribute.is_null() && CStr::from_ptr(attribute).to_bytes() == name.as_bytes()
            });
        (oid, fits)
    };
    if fits {
        checked.store(oid, Ordering::Relaxed);
        return Ok(());
    }
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        "the extension's tables do not fit the loaded library",
    )
    .hint("Run ALTER EXTENSION pushy UPDATE, and restart the server if the library was replaced while it ran."))
}
