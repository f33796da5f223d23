//! Arrays and composite values.

use std::cell::RefCell;
use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};

use super::write::list;
use super::{Nesting, ValueWriter};
use crate::pg::columns::{Columns, Tuple};
use crate::pg::varlena::Varlena;

pub struct Array {
    pub(super) element: ValueWriter,
    type_oid: Oid,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

/// A composite type, whose attributes may change under the tables that use it.
pub struct Composite {
    type_oid: Oid,
    /// How deep it lies in a table's column.
    depth: u32,
    cached: RefCell<(u64, Rc<Columns>)>,
}

impl Array {
    pub(super) unsafe fn of(element: Oid, nesting: Nesting<'_>) -> Self {
        let mut array = Self {
            element: ValueWriter::for_type(element, -1, nesting),
            type_oid: element,
            length: 0,
            by_value: false,
            align: 0,
        };
        pg_sys::get_typlenbyvalalign(
            element,
            &mut array.length,
            &mut array.by_value,
            &mut array.align,
        );
        array
    }

    pub(super) unsafe fn write(&self, datum: Datum, out: &mut Vec<u8>) {
        let plain = Varlena::of(datum).plain().cast::<pg_sys::ArrayType>();
        let dimensions: Vec<usize> = {
            // ARR_DIMS: right behind the header.
            let sizes = plain.add(1).cast::<i32>();
            (0..(*plain).ndim as usize)
                .map(|dimension| *sizes.add(dimension) as usize)
                .collect()
        };
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            plain,
            self.type_oid,
            i32::from(self.length),
            self.by_value,
            self.align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let values = std::slice::from_raw_parts(values, count as usize);
        let nulls = std::slice::from_raw_parts(nulls, count as usize);
        let mut elements = values.iter().copied().zip(nulls.iter().copied());
        match dimensions.as_slice() {
            [] => out.extend_from_slice(b"[]"),
            dimensions => self.write_dimension(dimensions, &mut elements, out),
        }
    }

    unsafe fn write_dimension(
        &self,
        dimensions: &[usize],
        elements: &mut dyn Iterator<Item = (Datum, bool)>,
        out: &mut Vec<u8>,
    ) {
        list(b"[]", 0..dimensions[0], out, |_, out| {
            match &dimensions[1..] {
                [] => match elements.next() {
                    Some((datum, false)) => self.element.write(datum, out),
                    _ => out.extend_from_slice(b"null"),
                },
                inner => self.write_dimension(inner, elements, out),
            }
        });
    }
}

impl Composite {
    pub(super) unsafe fn of(type_oid: Oid, nesting: Nesting<'_>) -> Self {
        Self {
            type_oid,
            depth: nesting.depth,
            cached: RefCell::new(Self::look_up(type_oid, nesting)),
        }
    }

    unsafe fn look_up(type_oid: Oid, nesting: Nesting<'_>) -> (u64, Rc<Columns>) {
        let identifier = pg_sys::assign_record_type_identifier(type_oid, -1);
        let columns = Self::with_desc(type_oid, |desc| Columns::nested(desc, nesting));
        (identifier, Rc::new(columns))
    }

    unsafe fn with_desc<T>(type_oid: Oid, work: impl FnOnce(pg_sys::TupleDesc) -> T) -> T {
        let desc = pg_sys::lookup_rowtype_tupdesc(type_oid, -1);
        let answer = work(desc);
        if (*desc).tdrefcount >= 0 {
            pg_sys::DecrTupleDescRefCount(desc);
        }
        answer
    }

    /// The attributes as they are now.
    pub(super) fn columns(&self) -> Rc<Columns> {
        // SAFETY: type cache look-ups of an existing type.
        unsafe {
            let identifier = pg_sys::assign_record_type_identifier(self.type_oid, -1);
            let cached = self.cached.borrow().clone();
            if cached.0 == identifier {
                return cached.1;
            }
            let budget = Nesting::budget();
            let found = Self::look_up(self.type_oid, Nesting::at(self.depth, &budget));
            let columns = found.1.clone();
            self.cached.replace(found);
            columns
        }
    }

    pub(super) unsafe fn write(&self, datum: Datum, out: &mut Vec<u8>) {
        let columns = self.columns();
        let plain = Varlena::of(datum).plain();
        let mut tuple = pg_sys::HeapTupleData {
            t_len: pgrx::varlena::varsize_4b(plain) as u32,
            t_data: plain.cast(),
            ..Default::default()
        };
        let (values, nulls) = Self::with_desc(self.type_oid, |desc| {
            let count = (*desc).natts as usize;
            let mut values = vec![Datum::null(); count];
            let mut nulls = vec![true; count];
            pg_sys::heap_deform_tuple(&mut tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            (values, nulls)
        });
        columns.write(&Tuple::of_values(&values, &nulls), out);
    }
}
