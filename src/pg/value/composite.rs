//! Values of a composite type.

use pgrx::pg_sys::{self, Datum, Oid};

use crate::pg::answer::{unzipped, Answer};

/// A value of the composite type with these columns, in the current memory context.
pub fn form(type_oid: Oid, columns: &[Answer]) -> Datum {
    let (mut values, mut nulls) = unzipped(columns);
    // SAFETY: the descriptor is pinned by this function and as wide as the columns (checked).
    unsafe {
        let desc = pg_sys::lookup_rowtype_tupdesc_copy(type_oid, -1);
        assert_eq!((*desc).natts as usize, columns.len());
        let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
        let datum = pg_sys::heap_copy_tuple_as_datum(tuple, desc);
        pg_sys::heap_freetuple(tuple);
        datum
    }
}
