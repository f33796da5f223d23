//! Rows appended, many at once, with their index entries.

use pgrx::pg_sys::{self, Datum};

use super::partial::Partial;
use super::{advance_command, Table};
use crate::pg::function::Answer;
use crate::pg::guard::guarded;
use crate::pg::{interrupts, major};

impl Table {
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
            let info = self.open_indexes(false);
            let partial = Partial::take(info);
            let mut slots = Slots::new(self.0);
            while rows.peek().is_some() {
                slots.fill(rows.by_ref().take(MOST_AT_ONCE));
                self.append_some(&mut slots, info, &partial, state);
                interrupts::check();
            }
            slots.free();
            pg_sys::ExecCloseIndices(info);
            pg_sys::FreeExecutorState(state);
            pg_sys::pfree(info.cast());
        }
        advance_command();
    }

    /// What index entries are made with. InitResultRelInfo would copy the table's triggers too, which what is written
    /// here does not fire (1 % of an enqueue); the rest of it is zero.
    pub(super) unsafe fn open_indexes(&self, speculative: bool) -> *mut pg_sys::ResultRelInfo {
        let info =
            pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
        (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
        (*info).ri_RelationDesc = self.0;
        pg_sys::ExecOpenIndices(info, speculative);
        info
    }

    unsafe fn append_some(
        &self,
        slots: &mut Slots,
        info: *mut pg_sys::ResultRelInfo,
        partial: &Partial,
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
            partial.choose(*slot);
            major::insert_index_entries(info, *slot, state, None);
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
pub(in crate::pg) struct Slots {
    /// The table's, without a reference count: that of a shared one is kept once per slot, by a resource
    /// owner (5 % of a batch).
    desc: pg_sys::TupleDesc,
    /// The table.
    of: pg_sys::Oid,
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
    pub(in crate::pg) unsafe fn new(relation: pg_sys::Relation) -> Self {
        let desc = (*relation).rd_att;
        Self {
            of: (*relation).rd_id,
            desc: pg_sys::CreateTupleDescCopy(desc),
            width: (*desc).natts as usize,
            slots: Vec::new(),
            filled: 0,
            values: Vec::new(),
            nulls: Vec::new(),
        }
    }

    pub(in crate::pg) unsafe fn fill<R: AsRef<[Answer]>>(&mut self, rows: impl Iterator<Item = R>) {
        self.values.clear();
        self.nulls.clear();
        self.filled = 0;
        for row in rows {
            let row = row.as_ref();
            if row.len() != self.width {
                super::refuse_columns(self.of);
            }
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
        guarded(|| {
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
    pub(in crate::pg) fn filled(&mut self) -> &mut [*mut pg_sys::TupleTableSlot] {
        &mut self.slots[..self.filled]
    }

    pub(in crate::pg) unsafe fn free(self) {
        let slots = &self.slots;
        guarded(|| {
            for slot in slots {
                ExecDropSingleTupleTableSlot(*slot);
            }
        });
        pg_sys::FreeTupleDesc(self.desc);
    }
}

/// One attempt to insert a row that no unique index was seen to have: whether it was inserted, or another transaction inserted one at
/// the same moment.
pub(super) unsafe fn insert_speculatively(
    relation: pg_sys::Relation,
    info: *mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) -> bool {
    let access = &*(*relation).rd_tableam;
    let insert = access.tuple_insert_speculative.expect("heap has it");
    let complete = access.tuple_complete_speculative.expect("heap has it");
    let transaction = pg_sys::GetCurrentTransactionId();
    let command = pg_sys::GetCurrentCommandId(true);
    let token = pg_sys::SpeculativeInsertionLockAcquire(transaction);
    guarded(|| insert(relation, slot, command, 0, std::ptr::null_mut(), token));
    let mut conflict = false;
    major::insert_index_entries(info, slot, state, Some(&mut conflict));
    guarded(|| complete(relation, slot, token, !conflict));
    pg_sys::SpeculativeInsertionLockRelease(transaction);
    !conflict
}
