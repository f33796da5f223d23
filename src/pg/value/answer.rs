//! What SQL functions answer: Rust's values as the server's.

use pgrx::pg_sys;

use crate::pg::text;
use crate::pg::value::{Char, Interval, Timestamp, Uuid};

/// What a function answers.
#[derive(Clone, Copy)]
pub enum Answer {
    Null,
    Datum(pg_sys::Datum),
}

impl Answer {
    /// As the server has columns of a row: the value, and whether it is NULL.
    pub fn value_and_null(&self) -> (pg_sys::Datum, bool) {
        match self {
            Answer::Null => (pg_sys::Datum::from(0usize), true),
            Answer::Datum(datum) => (*datum, false),
        }
    }
}

/// A value of a function's answer or of one column of a row.
pub trait IntoAnswer {
    fn into_answer(self) -> Answer;
}

impl IntoAnswer for Answer {
    fn into_answer(self) -> Answer {
        self
    }
}

impl IntoAnswer for () {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(0usize))
    }
}

impl IntoAnswer for bool {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(usize::from(self)))
    }
}

impl IntoAnswer for i16 {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(self))
    }
}

impl IntoAnswer for i32 {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(self))
    }
}

impl IntoAnswer for i64 {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(self))
    }
}

impl IntoAnswer for f64 {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(self.to_bits()))
    }
}

impl IntoAnswer for Char {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(self.0))
    }
}

impl IntoAnswer for pg_sys::Oid {
    fn into_answer(self) -> Answer {
        Answer::Datum(pg_sys::Datum::from(self))
    }
}

impl IntoAnswer for &str {
    fn into_answer(self) -> Answer {
        Answer::Datum(text::to_datum(self))
    }
}

impl IntoAnswer for String {
    fn into_answer(self) -> Answer {
        self.as_str().into_answer()
    }
}

/// Text in the server's encoding, byte for byte.
impl IntoAnswer for &[u8] {
    fn into_answer(self) -> Answer {
        Answer::Datum(text::bytes_to_datum(self))
    }
}

impl IntoAnswer for Vec<u8> {
    fn into_answer(self) -> Answer {
        self.as_slice().into_answer()
    }
}

impl<T: IntoAnswer> IntoAnswer for Option<T> {
    fn into_answer(self) -> Answer {
        self.map_or(Answer::Null, IntoAnswer::into_answer)
    }
}

impl IntoAnswer for Timestamp {
    fn into_answer(self) -> Answer {
        self.0.into_answer()
    }
}

impl IntoAnswer for Uuid {
    fn into_answer(self) -> Answer {
        // SAFETY: palloc'd and filled; a uuid is its sixteen bytes, passed by reference.
        unsafe {
            let copy = pg_sys::palloc(self.0.len()).cast::<u8>();
            std::ptr::copy_nonoverlapping(self.0.as_ptr(), copy, self.0.len());
            Answer::Datum(pg_sys::Datum::from(copy))
        }
    }
}

impl IntoAnswer for Interval {
    fn into_answer(self) -> Answer {
        // SAFETY: palloc'd and filled; an interval is passed by reference.
        unsafe {
            let interval =
                pg_sys::palloc0(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
            (*interval).time = self.0;
            Answer::Datum(pg_sys::Datum::from(interval))
        }
    }
}

/// A row from values of different types: `row![1i32, "text", None::<i64>]`.
#[macro_export]
macro_rules! row {
    ($($value:expr),* $(,)?) => {
        &[$($crate::pg::answer::IntoAnswer::into_answer($value)),*]
    };
}

/// Values and null flags apart, as tuples are formed from them.
pub(in crate::pg) fn unzipped(columns: &[Answer]) -> (Vec<pg_sys::Datum>, Vec<bool>) {
    columns.iter().map(Answer::value_and_null).unzip()
}
