//! The columns of a relation, the values of one of its rows, and both as JSON.

use pgrx::pg_sys::{self, Datum};

use crate::pg::guard::guarded;
use crate::pg::json::{self, Nesting, ValueWriter};
use crate::pg::major;
use crate::pg::varlena::Varlena;

extern "C-unwind" {
    /// Called within our guard, for each row.
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, upto: std::ffi::c_int);
}

/// One live column.
pub struct Column {
    /// The attribute number, from 1.
    pub number: i16,
    /// The name as JSON has it, with the colon: `"name":`.
    label: Vec<u8>,
    by_value: bool,
    /// As in pg_type: bytes, -1 for a varlena, -2 for a C string.
    length: i16,
    writer: ValueWriter,
}

/// The live columns of a relation, in order: generated ones are in, dropped ones are not.
pub struct Columns(Vec<Column>);

/// The values of one row, by attribute.
#[derive(Clone, Copy)]
pub struct Tuple<'a> {
    values: &'a [Datum],
    nulls: &'a [bool],
}

impl<'a> Tuple<'a> {
    /// The row of a slot, read up to attribute `upto` (from 1).
    ///
    /// # Safety
    /// The slot holds a row and neither it nor that row changes during `'a`. The tuple is given only to
    /// the [`Columns`] of the slot's own descriptor.
    pub unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot, upto: i16) -> Self {
        if (*slot).tts_nvalid < upto {
            guarded(|| slot_getsomeattrs_int(slot, i32::from(upto)));
        }
        let count = (*slot).tts_nvalid as usize;
        Self {
            values: std::slice::from_raw_parts((*slot).tts_values, count),
            nulls: std::slice::from_raw_parts((*slot).tts_isnull, count),
        }
    }

    fn value(&self, column: &Column) -> Option<Datum> {
        let index = column.number as usize - 1;
        (!self.nulls[index]).then(|| self.values[index])
    }

    /// Whether both rows have the same value here, bit for bit: `1.0` and `1.00` are two. A stored value
    /// that neither row changed is not fetched.
    pub fn is_same(old: &Tuple, new: &Tuple, column: &Column) -> bool {
        match (old.value(column), new.value(column)) {
            (None, None) => true,
            // SAFETY: both are values of the column's type (see of_slot).
            (Some(old), Some(new)) => unsafe { column.is_image_equal(old, new) },
            _ => false,
        }
    }
}

impl Column {
    unsafe fn of(attribute: &pg_sys::FormData_pg_attribute, nesting: Nesting<'_>) -> Self {
        let name = std::ffi::CStr::from_ptr(attribute.attname.data.as_ptr());
        let mut label = Vec::with_capacity(name.count_bytes() + 3);
        pushy_core::json::quoted(name.to_bytes(), &mut label);
        label.push(b':');
        Self {
            number: attribute.attnum,
            label,
            by_value: attribute.attbyval,
            length: attribute.attlen,
            writer: ValueWriter::for_type(attribute.atttypid, attribute.atttypmod, nesting),
        }
    }

    /// datum_image_eq (datum.c), which fetches every toasted value it compares.
    unsafe fn is_image_equal(&self, old: Datum, new: Datum) -> bool {
        if self.by_value {
            return old == new;
        }
        let (old_pointer, new_pointer) = (old.cast_mut_ptr::<u8>(), new.cast_mut_ptr::<u8>());
        match self.length {
            -1 => Varlena::of(old).is_equal(&Varlena::of(new)),
            -2 => {
                std::ffi::CStr::from_ptr(old_pointer.cast())
                    == std::ffi::CStr::from_ptr(new_pointer.cast())
            }
            length => {
                std::slice::from_raw_parts(old_pointer, length as usize)
                    == std::slice::from_raw_parts(new_pointer, length as usize)
            }
        }
    }

    /// Whether writing a value may raise an error of user code: put a subtransaction around it.
    pub fn can_fail(&self) -> bool {
        self.writer.can_fail()
    }

    pub fn may_be_no_jsonb(&self) -> bool {
        self.writer.may_be_no_jsonb()
    }

    /// Appends `"name":value`.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn write(&self, tuple: &Tuple, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.label);
        match tuple.value(self) {
            // SAFETY: a value of the column's type (see Tuple::of_slot).
            Some(datum) => unsafe { self.writer.write(datum, out) },
            None => out.extend_from_slice(b"null"),
        }
    }
}

impl Columns {
    /// # Safety
    /// `desc` is a valid descriptor; nothing of it is kept.
    pub unsafe fn from_desc(desc: pg_sys::TupleDesc) -> Self {
        Self::of(desc, |attribute| {
            let budget = Nesting::budget();
            Column::of(attribute, Nesting::at(0, &budget))
        })
    }

    /// Those of a row type inside a column.
    ///
    /// # Safety
    /// As of [`from_desc`](Self::from_desc).
    pub unsafe fn nested(desc: pg_sys::TupleDesc, nesting: Nesting<'_>) -> Self {
        Self::of(desc, |attribute| Column::of(attribute, nesting))
    }

    unsafe fn of(
        desc: pg_sys::TupleDesc,
        column: impl Fn(&pg_sys::FormData_pg_attribute) -> Column,
    ) -> Self {
        Self(
            (0..(*desc).natts)
                .map(|index| &*major::attribute(desc, index))
                .filter(|attribute| !attribute.attisdropped)
                .map(column)
                .collect(),
        )
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Column> {
        self.0.iter()
    }

    /// The position of an attribute number in [`iter`](Self::iter).
    pub fn position(&self, number: i16) -> Option<usize> {
        self.0
            .binary_search_by_key(&number, |column| column.number)
            .ok()
    }

    pub fn get(&self, position: usize) -> &Column {
        &self.0[position]
    }

    /// The highest attribute number.
    pub fn last(&self) -> i16 {
        self.0.last().map_or(0, |column| column.number)
    }

    pub fn can_fail(&self) -> bool {
        self.0.iter().any(Column::can_fail)
    }

    pub fn may_be_no_jsonb(&self) -> bool {
        self.0.iter().any(Column::may_be_no_jsonb)
    }

    /// Whether a value of the row is so large that the server may fail to fetch or to write it.
    pub fn has_large(&self, tuple: &Tuple) -> bool {
        self.iter()
            .filter(|column| column.length == -1)
            .filter_map(|column| tuple.value(column))
            // SAFETY: values of variable length (see Tuple::of_slot).
            .any(|datum| unsafe { Varlena::of(datum) }.length() > json::limit::LARGE)
    }

    /// Appends the row as an object.
    pub fn write(&self, tuple: &Tuple, out: &mut Vec<u8>) {
        json::list(b"{}", self.iter(), out, |column, out| {
            column.write(tuple, out);
        });
    }
}

impl<'a> Tuple<'a> {
    /// # Safety
    /// As [`of_slot`](Self::of_slot), of values deformed by the descriptor.
    pub(in crate::pg) unsafe fn of_values(values: &'a [Datum], nulls: &'a [bool]) -> Self {
        Self { values, nulls }
    }
}
