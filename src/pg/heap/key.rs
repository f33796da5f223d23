//! Conditions on the columns of an index.

use pgrx::pg_sys::{self, Datum};

use crate::pg::function::{Answer, IntoAnswer};
use crate::pg::value::Timestamp;

/// A condition on a column of an index (from 1): how it compares, by which function, with what.
pub struct Key {
    pub(super) column: i16,
    pub(super) strategy: u32,
    pub(super) function: u32,
    pub(super) value: Datum,
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

    pub fn int4_below(column: i16, value: i32) -> Self {
        Self {
            strategy: pg_sys::BTLessStrategyNumber,
            function: pg_sys::F_INT4LT,
            ..Self::int4_equals(column, value)
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

    /// In the collation of the index.
    pub fn text_equals(column: i16, value: &str) -> Self {
        let Answer::Datum(value) = value.into_answer() else {
            unreachable!("a text is not NULL")
        };
        Self {
            column,
            strategy: pg_sys::BTEqualStrategyNumber,
            function: pg_sys::F_TEXTEQ,
            value,
        }
    }

    pub fn uuid_equals(column: i16, value: [u8; 16]) -> Self {
        // SAFETY: as many bytes as a uuid has, in memory that outlives the scan.
        let value = unsafe {
            let bytes = pg_sys::palloc(value.len()).cast::<[u8; 16]>();
            bytes.write(value);
            Datum::from(bytes)
        };
        Self {
            column,
            strategy: pg_sys::BTEqualStrategyNumber,
            function: pg_sys::F_UUID_EQ,
            value,
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

    pub fn int8_above(column: i16, value: i64) -> Self {
        Self {
            column,
            strategy: pg_sys::BTGreaterStrategyNumber,
            function: pg_sys::F_INT8GT,
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

    pub fn timestamp_equals(column: i16, value: Timestamp) -> Self {
        Self {
            column,
            strategy: pg_sys::BTEqualStrategyNumber,
            function: pg_sys::F_TIMESTAMPTZ_EQ,
            value: Datum::from(value.0),
        }
    }

    pub fn timestamp_above(column: i16, value: Timestamp) -> Self {
        Self {
            column,
            strategy: pg_sys::BTGreaterStrategyNumber,
            function: pg_sys::F_TIMESTAMPTZ_GT,
            value: Datum::from(value.0),
        }
    }

    pub fn timestamp_at_least(column: i16, value: Timestamp) -> Self {
        Self {
            column,
            strategy: pg_sys::BTGreaterEqualStrategyNumber,
            function: pg_sys::F_TIMESTAMPTZ_GE,
            value: Datum::from(value.0),
        }
    }

    pub fn timestamp_at_most(column: i16, value: Timestamp) -> Self {
        Self {
            column,
            strategy: pg_sys::BTLessEqualStrategyNumber,
            function: pg_sys::F_TIMESTAMPTZ_LE,
            value: Datum::from(value.0),
        }
    }
}
