//! Rows changed that this transaction has locked, with their index entries.

use pgrx::pg_sys;

use super::partial::Partial;
use super::{advance_command, Table};
use crate::pg::function::Answer;
use crate::pg::guard::guarded;
use crate::pg::major;
use crate::pg::spi::Tid;

// Called within one guard for each row.
extern "C-unwind" {
    fn ExecFetchSlotHeapTuple(
        slot: *mut pg_sys::TupleTableSlot,
        materialize: bool,
        should_free: *mut bool,
    ) -> pg_sys::HeapTuple;
    fn heap_modify_tuple_by_cols(
        tuple: pg_sys::HeapTuple,
        desc: pg_sys::TupleDesc,
        count: std::ffi::c_int,
        columns: *const std::ffi::c_int,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    ) -> pg_sys::HeapTuple;
    fn ExecStoreHeapTuple(
        tuple: pg_sys::HeapTuple,
        slot: *mut pg_sys::TupleTableSlot,
        free: bool,
    ) -> *mut pg_sys::TupleTableSlot;
}

impl Table {
    /// Sets columns (from 1) of rows that this transaction has locked, and that are in the file where it has found them. As `append`: constraints
    /// are the caller's to keep, and the rows are visible to the next command.
    pub fn update(&self, rows: impl Iterator<Item = Tid>, set: &[(i32, Answer)]) {
        let columns: Vec<i32> = set.iter().map(|(column, _)| *column).collect();
        let (values, nulls): (Vec<pg_sys::Datum>, Vec<bool>) =
            set.iter().map(|(_, value)| value.value_and_null()).unzip();
        // SAFETY: what the server does for its catalogs (CatalogTupleUpdate): the row as it is, a copy with other columns, written over it, and its
        // entries where there is none yet for it. Rows of this table, locked by us: nobody can have changed them. What is allocated goes with
        // the slots and the executor state, and with its context after an ERROR.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let info = self.open_indexes(false);
            let partial = Partial::take(info);
            let old = pg_sys::table_slot_create(self.raw(), std::ptr::null_mut());
            let new = pg_sys::MakeSingleTupleTableSlot(
                (*self.raw()).rd_att,
                &raw const pg_sys::TTSOpsHeapTuple,
            );
            let fetch = (*(*self.raw()).rd_tableam)
                .tuple_fetch_row_version
                .expect("every table access method has it");
            let relation = self.raw();
            for row in rows {
                let mut tid = row.raw();
                let tid = &mut tid;
                let is_entered = guarded(|| {
                    let any = &raw mut pg_sys::SnapshotAnyData;
                    if !fetch(relation, tid, any, old) {
                        return None;
                    }
                    let tuple = ExecFetchSlotHeapTuple(old, false, std::ptr::null_mut());
                    let changed = heap_modify_tuple_by_cols(
                        tuple,
                        (*relation).rd_att,
                        columns.len() as i32,
                        columns.as_ptr(),
                        values.as_ptr(),
                        nulls.as_ptr(),
                    );
                    let is_entered = major::heap_update(relation, tid, changed);
                    ExecStoreHeapTuple(changed, new, true);
                    (*new).tts_tid = (*changed).t_self;
                    Some(is_entered)
                });
                if !is_entered.expect("a locked row is there") {
                    partial.choose(new);
                    major::update_index_entries(info, new, state);
                    let per_row = (*state).es_per_tuple_exprcontext;
                    if !per_row.is_null() {
                        pg_sys::MemoryContextReset((*per_row).ecxt_per_tuple_memory);
                    }
                }
            }
            pg_sys::ExecDropSingleTupleTableSlot(new);
            pg_sys::ExecDropSingleTupleTableSlot(old);
            pg_sys::ExecCloseIndices(info);
            pg_sys::FreeExecutorState(state);
            pg_sys::pfree(info.cast());
        }
        advance_command();
    }
}
