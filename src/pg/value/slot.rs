//! Rows in the executor's hands.

use std::marker::PhantomData;

use pgrx::pg_sys;

use crate::pg::columns::{Columns, Tuple};
use crate::pg::function::Answer;
use crate::pg::major;
use crate::pg::memory::Context;

/// A slot that holds a row.
#[derive(Clone, Copy)]
pub struct Slot<'a> {
    slot: *mut pg_sys::TupleTableSlot,
    _row: PhantomData<&'a ()>,
}

impl<'a> Slot<'a> {
    /// # Safety
    /// The slot is filled, and stays so for 'a.
    pub unsafe fn new(slot: *mut pg_sys::TupleTableSlot) -> Self {
        Self {
            slot,
            _row: PhantomData,
        }
    }

    pub fn raw(self) -> *mut pg_sys::TupleTableSlot {
        self.slot
    }

    /// The row up to this attribute (from 1), for what is known of the columns of its row type.
    pub fn tuple(self, upto: i16) -> Tuple<'a> {
        // SAFETY: the slot is filled, and stays so for 'a.
        unsafe { Tuple::of_slot(self.slot, upto) }
    }

    /// All columns, dropped ones included: values, and which are NULL.
    fn columns(self) -> (&'a [pg_sys::Datum], &'a [bool]) {
        // SAFETY: the slot is filled; its arrays are as long as its descriptor says.
        unsafe {
            let count = (*(*self.slot).tts_tupleDescriptor).natts as usize;
            if ((*self.slot).tts_nvalid as usize) < count {
                pg_sys::slot_getsomeattrs_int(self.slot, count as i32);
            }
            (
                std::slice::from_raw_parts((*self.slot).tts_values, count),
                std::slice::from_raw_parts((*self.slot).tts_isnull, count),
            )
        }
    }

    /// The command that deleted the row, where an update moved it to another partition.
    pub fn moved_by(self) -> Option<u32> {
        // SAFETY: of an AFTER trigger the row is read from its table, header included, and was changed by
        // this transaction (HeapTupleHeaderIndicatesMovedPartitions in htup_details.h).
        unsafe {
            let tuple = pg_sys::ExecFetchSlotHeapTuple(self.slot, false, std::ptr::null_mut());
            let header = (*tuple).t_data;
            let moved_to = (*header).t_ctid;
            let moved = u32::from(moved_to.ip_posid) == pg_sys::MovedPartitionsOffsetNumber
                && moved_to.ip_blkid.bi_hi == u16::MAX
                && moved_to.ip_blkid.bi_lo == u16::MAX;
            moved.then(|| pg_sys::HeapTupleHeaderGetCmax(header))
        }
    }

    /// The command that inserted the row.
    pub fn inserted_by(self) -> u32 {
        // SAFETY: as above.
        unsafe {
            let tuple = pg_sys::ExecFetchSlotHeapTuple(self.slot, false, std::ptr::null_mut());
            pg_sys::HeapTupleHeaderGetCmin((*tuple).t_data)
        }
    }
}

/// A row type, copied so that it outlives its table's cache entry.
#[derive(Clone, Copy)]
pub struct RowType(pg_sys::TupleDesc);

impl RowType {
    /// # Safety
    /// `descriptor` is valid now; the copy lives as long as `context`.
    pub(in crate::pg) unsafe fn copied(descriptor: pg_sys::TupleDesc, context: &Context) -> Self {
        context.enter(|| Self(pg_sys::CreateTupleDescCopyConstr(descriptor)))
    }

    /// The row type of a table.
    pub fn of_table(relation: pg_sys::Oid, context: &Context) -> Self {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        // SAFETY: raises where there is no such table; closed before anybody else gets at it.
        unsafe {
            let table = pg_sys::table_open(relation, lock);
            let copy = Self::copied((*table).rd_att, context);
            pg_sys::table_close(table, lock);
            copy
        }
    }

    pub fn columns(self) -> Columns {
        // SAFETY: a descriptor of ours.
        unsafe { Columns::from_desc(self.0) }
    }

    pub fn virtual_columns(self) -> Vec<VirtualColumn> {
        // SAFETY: as above.
        let attributes =
            (0..unsafe { (*self.0).natts }).map(|at| unsafe { &*major::attribute(self.0, at) });
        attributes
            .filter(|attribute| !attribute.attisdropped && major::is_virtual(attribute))
            .map(|attribute| VirtualColumn {
                number: attribute.attnum,
                type_oid: attribute.atttypid,
                typmod: attribute.atttypmod,
                collation: attribute.attcollation,
            })
            .collect()
    }
}

/// A column that is generated when it is read: no row has its value.
pub struct VirtualColumn {
    number: i16,
    type_oid: pg_sys::Oid,
    typmod: i32,
    collation: pg_sys::Oid,
}

impl VirtualColumn {
    /// The column of the row `number` of an expression.
    pub(in crate::pg) fn variable(&self, number: i32) -> *mut pg_sys::Node {
        // SAFETY: allocates a node.
        unsafe {
            let Self {
                type_oid,
                typmod,
                collation,
                ..
            } = *self;
            pg_sys::makeVar(number, self.number, type_oid, typmod, collation, 0).cast()
        }
    }
}

/// A slot of our own, filled with NULLs at first. Dropped before the context it was made in.
pub struct OwnSlot(*mut pg_sys::TupleTableSlot);

impl Drop for OwnSlot {
    fn drop(&mut self) {
        // SAFETY: made by new(); nobody has a row of it any more.
        unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.0) }
    }
}

impl OwnSlot {
    pub fn new(row_type: RowType, context: &Context) -> Self {
        // SAFETY: allocated in `context`, the descriptor is not counted.
        context.enter(|| unsafe {
            let slot =
                pg_sys::MakeSingleTupleTableSlot(row_type.0, &raw const pg_sys::TTSOpsVirtual);
            pg_sys::ExecStoreAllNullTuple(slot);
            Self(slot)
        })
    }

    /// Fills it with a row of another layout.
    pub fn mapped(&self, row: Slot<'_>, layout: &Layout) -> Slot<'_> {
        // SAFETY: the map was made for these two row types.
        unsafe {
            pg_sys::execute_attr_map_slot((*layout.0).attrMap, row.raw(), self.0);
            self.place_as(row);
            Slot::new(self.0)
        }
    }

    /// Fills it with a copy of a row of the same layout, which lives until the next fill.
    pub fn copied(&self, row: Slot<'_>, context: &Context) -> Slot<'_> {
        self.completed(row, &[], &[], context)
    }

    /// The same with the values of virtual columns.
    pub fn completed(
        &self,
        row: Slot<'_>,
        columns: &[VirtualColumn],
        generated: &[Answer],
        context: &Context,
    ) -> Slot<'_> {
        // SAFETY: a virtual slot of ours; materializing copies all values into its own memory.
        context.enter(|| unsafe {
            pg_sys::ExecClearTuple(self.0);
            let (values, nulls) = row.columns();
            std::ptr::copy_nonoverlapping(values.as_ptr(), (*self.0).tts_values, values.len());
            std::ptr::copy_nonoverlapping(nulls.as_ptr(), (*self.0).tts_isnull, nulls.len());
            for (column, value) in columns.iter().zip(generated) {
                let at = column.number as usize - 1;
                *(*self.0).tts_isnull.add(at) = matches!(value, Answer::Null);
                if let Answer::Datum(datum) = value {
                    *(*self.0).tts_values.add(at) = *datum;
                }
            }
            pg_sys::ExecStoreVirtualTuple(self.0);
            pg_sys::ExecMaterializeSlot(self.0);
            self.place_as(row);
            Slot::new(self.0)
        })
    }

    /// Where the row is: what an expression sees as ctid and tableoid.
    unsafe fn place_as(&self, row: Slot<'_>) {
        (*self.0).tts_tid = (*row.raw()).tts_tid;
        (*self.0).tts_tableOid = (*row.raw()).tts_tableOid;
    }

    pub fn filled(&self) -> Slot<'_> {
        // SAFETY: a slot of ours.
        unsafe { Slot::new(self.0) }
    }
}

/// How the columns of a partition lie in its parent.
pub struct Layout(*mut pg_sys::TupleConversionMap);

impl Layout {
    /// None where they lie the same. The map lives as long as `context`, and keeps both row types.
    pub fn between(partition: RowType, parent: RowType, context: &Context) -> Option<Self> {
        // SAFETY: descriptors of ours, in the same context.
        let map =
            context.enter(|| unsafe { pg_sys::convert_tuples_by_name(partition.0, parent.0) });
        (!map.is_null()).then_some(Self(map))
    }
}
