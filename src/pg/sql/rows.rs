//! The rows that a statement answers, and their values.

use super::spi::Spi;
use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::text;
use crate::pg::value::{Timestamp, Uuid};
use crate::pg::varlena::Varlena;
use pgrx::pg_sys;

/// What a statement answered.
pub struct Rows<'spi> {
    pub(super) table: *mut pg_sys::SPITupleTable,
    pub(super) processed: usize,
    pub(super) _spi: std::marker::PhantomData<&'spi Spi>,
}

impl<'spi> Rows<'spi> {
    /// Rows answered, or touched by a statement without RETURNING.
    pub fn len(&self) -> usize {
        self.processed
    }

    pub fn is_empty(&self) -> bool {
        self.processed == 0
    }

    pub fn row(&self, index: usize) -> Row<'_> {
        assert!(!self.table.is_null() && index < self.processed);
        // SAFETY: vals has `processed` entries while SPI is connected.
        unsafe {
            let (tuple, desc) = (*(*self.table).vals.add(index), (*self.table).tupdesc);
            Row {
                source: Source::Tuple(tuple, desc),
                _table: std::marker::PhantomData,
            }
        }
    }

    pub fn first(&self) -> Option<Row<'_>> {
        (!self.is_empty()).then(|| self.row(0))
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.processed).map(|index| self.row(index))
    }
}

/// One row; columns count from 1, as in SPI.
#[derive(Clone, Copy)]
pub struct Row<'table> {
    source: Source,
    _table: std::marker::PhantomData<&'table ()>,
}

#[derive(Clone, Copy)]
enum Source {
    Tuple(pg_sys::HeapTuple, pg_sys::TupleDesc),
    /// A slot whose columns have all been read.
    Slot(*mut pg_sys::TupleTableSlot),
}

impl Row<'_> {
    /// A row of a table of ours, read without SPI, all its columns; valid until the slot has another.
    pub(in crate::pg) fn of_slot(slot: *mut pg_sys::TupleTableSlot) -> Self {
        Self {
            source: Source::Slot(slot),
            _table: std::marker::PhantomData,
        }
    }

    /// A row of a table of ours as a tuple on its page; valid while that is pinned.
    pub(in crate::pg) fn of_tuple(tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc) -> Self {
        Self {
            source: Source::Tuple(tuple, desc),
            _table: std::marker::PhantomData,
        }
    }

    pub fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: tuple and descriptor belong together; a slot has as many values as it says.
        let datum = unsafe {
            match self.source {
                Source::Tuple(tuple, desc) => pg_sys::SPI_getbinval(tuple, desc, column, &mut null),
                Source::Slot(slot) => {
                    let at = column as usize - 1;
                    assert!(at < (*slot).tts_nvalid as usize);
                    null = *(*slot).tts_isnull.add(at);
                    *(*slot).tts_values.add(at)
                }
            }
        };
        (!null).then_some(datum)
    }

    /// A value as it is, for a row that is stored while SPI is connected.
    pub fn answer(&self, column: i32) -> Answer {
        self.datum(column).map_or(Answer::Null, Answer::Datum)
    }

    fn present(&self, column: i32) -> pg_sys::Datum {
        self.datum(column)
            .unwrap_or_else(|| panic!("column {column} is null"))
    }

    pub fn opt_i64(&self, column: i32) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    pub fn i64(&self, column: i32) -> i64 {
        self.present(column).value() as i64
    }

    pub fn opt_i32(&self, column: i32) -> Option<i32> {
        self.datum(column).map(|datum| datum.value() as i32)
    }

    pub fn i32(&self, column: i32) -> i32 {
        self.present(column).value() as i32
    }

    pub fn i16(&self, column: i32) -> i16 {
        self.present(column).value() as i16
    }

    pub fn bool(&self, column: i32) -> bool {
        self.present(column).value() & 0xff != 0
    }

    pub fn oid(&self, column: i32) -> pg_sys::Oid {
        pg_sys::Oid::from(self.present(column).value() as u32)
    }

    /// A "char".
    pub fn byte(&self, column: i32) -> u8 {
        self.present(column).value() as u8
    }

    pub fn timestamp(&self, column: i32) -> Timestamp {
        Timestamp(self.i64(column))
    }

    pub fn uuid(&self, column: i32) -> Uuid {
        let datum = self.present(column);
        // SAFETY: the caller selects a uuid here, which is sixteen bytes.
        Uuid(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() })
    }

    pub fn opt_text(&self, column: i32) -> Result<Option<String>> {
        // SAFETY: the statement selects text here.
        self.datum(column)
            .map(|datum| unsafe { text::from_datum(datum) })
            .transpose()
    }

    /// Text as the server stores it.
    pub fn opt_bytes(&self, column: i32) -> Option<Vec<u8>> {
        // SAFETY: the statement selects text here.
        self.datum(column)
            .map(|datum| unsafe { text::bytes_from_datum(datum) })
    }

    /// Bytes of a text or a jsonb, without reading it; 0 for NULL.
    pub fn length(&self, column: i32) -> usize {
        // SAFETY: the statement selects a type of variable length here.
        self.datum(column)
            .map_or(0, |datum| unsafe { Varlena::of(datum).length() })
    }

    pub fn text(&self, column: i32) -> Result<String> {
        // SAFETY: the statement selects text here.
        unsafe { text::from_datum(self.present(column)) }
    }

    pub fn name(&self, column: i32) -> String {
        // SAFETY: a `name` here, which ends with a NUL.
        unsafe { text::from_c(self.present(column).cast_mut_ptr()) }
    }

    /// A by-reference value of variable length (text, jsonb, composite), copied into `context` and
    /// detoasted, so that it outlives SPI and the row.
    pub fn varlena_in(&self, column: i32, context: pg_sys::MemoryContext) -> Option<pg_sys::Datum> {
        // SAFETY: the caller selects a varlena here; the copy is made in `context`, which is live.
        self.datum(column).map(|datum| unsafe {
            let old = pg_sys::MemoryContextSwitchTo(context);
            let copy = pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr());
            pg_sys::MemoryContextSwitchTo(old);
            pg_sys::Datum::from(copy)
        })
    }

    /// The same into the current memory context; NULL is one.
    pub fn answer_copied(&self, column: i32) -> Answer {
        // SAFETY: the current context is live.
        let context = unsafe { pg_sys::CurrentMemoryContext };
        self.varlena_in(column, context)
            .map_or(Answer::Null, Answer::Datum)
    }

    /// The same into the memory of the caller of SPI, for a function's answer.
    pub fn answer_varlena(&self, column: i32) -> Answer {
        match self.datum(column) {
            None => Answer::Null,
            // SAFETY: connected to SPI; SPI_palloc takes memory of the upper executor context.
            Some(datum) => unsafe {
                let flat = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
                let size = pgrx::varsize_any(flat);
                let copy = pg_sys::SPI_palloc(size);
                std::ptr::copy_nonoverlapping(flat.cast::<u8>(), copy.cast::<u8>(), size);
                Answer::Datum(pg_sys::Datum::from(copy))
            },
        }
    }
}
