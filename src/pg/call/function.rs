//! One call of an SQL function: its arguments, and the way to answer.
//!
//! Declared by hand in `sql/`, with defaults and names as users see them; no function is STRICT, so
//! every required argument answers NULL with an error that names it.

use std::time::Duration;

use pgrx::pg_sys;

use crate::errors::{Error, Result};
use crate::pg::answer::unzipped;
pub use crate::pg::answer::{Answer, IntoAnswer};
use crate::pg::result_rows::Rows;
use crate::pg::value::interval;
use crate::pg::value::{Timestamp, Uuid};
use crate::pg::varlena::Varlena;
use crate::pg::{ereport, installed, jsonb, text};

/// One call of an SQL function: its arguments and the way to answer.
#[derive(Clone, Copy)]
pub struct Call {
    fcinfo: pg_sys::FunctionCallInfo,
}

impl Call {
    /// # Safety
    /// `fcinfo` is the one the function manager passed, and outlives the call.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo) -> Self {
        Self { fcinfo }
    }

    /// The raw argument, NULL as None. So is one that was not passed, because an aggregate of somebody's, made when the function had fewer
    /// arguments, passes those: new ones stand behind the old ones, and NULL is 'not said'.
    pub fn datum(self, index: usize) -> Option<pg_sys::Datum> {
        // SAFETY: fcinfo is valid (see new); the slice ends at nargs.
        unsafe {
            let args = (*self.fcinfo).args.as_slice((*self.fcinfo).nargs as usize);
            let argument = args.get(index)?;
            (!argument.isnull).then_some(argument.value)
        }
    }

    fn required<T>(name: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| Error::null_argument(name))
    }

    /// Bytes of an argument of variable length; 0 for NULL.
    pub fn length(self, index: usize) -> usize {
        // SAFETY: declared as text or jsonb in sql/.
        self.datum(index)
            .map_or(0, |datum| unsafe { Varlena::of(datum).length() })
    }

    pub fn opt_bytes(self, index: usize) -> Option<Vec<u8>> {
        // SAFETY: declared as text in sql/.
        self.datum(index)
            .map(|datum| unsafe { text::bytes_from_datum(datum) })
    }

    /// Text as the server stores it, in the database's encoding.
    pub fn bytes(self, name: &str, index: usize) -> Result<Vec<u8>> {
        Self::required(name, self.opt_bytes(index))
    }

    pub fn opt_text(self, index: usize) -> Result<Option<String>> {
        // SAFETY: declared as text in sql/.
        self.datum(index)
            .map(|datum| unsafe { text::from_datum(datum) })
            .transpose()
    }

    /// A name, a cursor or another word, all of which are short: what is longer is no such thing, and is not copied to be looked for.
    pub fn text(self, name: &str, index: usize) -> Result<String> {
        const LONGEST: usize = 1 << 20;
        let length = self.length(index);
        if length > LONGEST {
            return Err(Error::out_of_range(
                name,
                format!("a text of {length} bytes"),
                "1 MB at most",
            ));
        }
        Self::required(name, self.opt_text(index)?)
    }

    pub fn opt_i32(self, index: usize) -> Option<i32> {
        self.datum(index).map(|datum| datum.value() as i32)
    }

    pub fn opt_i64(self, index: usize) -> Option<i64> {
        self.datum(index).map(|datum| datum.value() as i64)
    }

    pub fn i64(self, name: &str, index: usize) -> Result<i64> {
        Self::required(name, self.opt_i64(index))
    }

    pub fn opt_f64(self, index: usize) -> Option<f64> {
        self.datum(index)
            .map(|datum| f64::from_bits(datum.value() as u64))
    }

    pub fn opt_bool(self, index: usize) -> Option<bool> {
        self.datum(index).map(|datum| datum.value() & 0xff != 0)
    }

    pub fn opt_oid(self, index: usize) -> Option<pg_sys::Oid> {
        self.datum(index)
            .map(|datum| pg_sys::Oid::from(datum.value() as u32))
    }

    pub fn uuid(self, name: &str, index: usize) -> Result<Uuid> {
        let datum = Self::required(name, self.datum(index))?;
        // SAFETY: declared as uuid in sql/, which is sixteen bytes.
        Ok(Uuid(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() }))
    }

    /// A jsonb, to be read in this call.
    pub fn jsonb<'a>(self, name: &str, index: usize) -> Result<jsonb::Part<'a>> {
        let datum = Self::required(name, self.datum(index))?;
        // SAFETY: declared as jsonb in sql/; an argument lives as long as its call.
        unsafe { jsonb::read(datum) }
    }

    pub fn opt_timestamp(self, index: usize) -> Option<Timestamp> {
        self.opt_i64(index).map(Timestamp)
    }

    /// An interval as microseconds, a month being 30 days and a day 24 hours, as
    /// `extract(epoch …)` has it; out of range is an error that names the argument.
    pub fn opt_interval_us(self, name: &str, index: usize) -> Result<Option<i64>> {
        let Some(datum) = self.datum(index) else {
            return Ok(None);
        };
        // SAFETY: declared as interval in sql/, passed by reference, never NULL here.
        let interval = unsafe { *datum.cast_mut_ptr::<pg_sys::Interval>() };
        let days = i64::from(interval.month) * 30 + i64::from(interval.day);
        days.checked_mul(86_400_000_000)
            .and_then(|us| us.checked_add(interval.time))
            // Half the range of int8, so that sums with timestamps cannot overflow.
            .filter(|us| us.unsigned_abs() < i64::MAX as u64 / 2)
            .map(Some)
            .ok_or_else(|| {
                Error::out_of_range(
                    name,
                    self.shown_interval(index),
                    "up to about 146,000 years",
                )
            })
    }

    /// The time that comes an interval after `from`, as `from + interval` has it in SQL: a month is a month and a day a day of
    /// the session's time zone.
    pub fn opt_interval_from(
        self,
        name: &str,
        index: usize,
        from: Timestamp,
    ) -> Result<Option<Timestamp>> {
        // Refuses what is too long, and what is infinite, before the server does.
        if self.opt_interval_us(name, index)?.is_none() {
            return Ok(None);
        }
        let interval = self.datum(index).unwrap_or(pg_sys::Datum::from(0usize));
        // SAFETY: takes a timestamptz and an interval, neither NULL; raises 22008 behind the last timestamp.
        let sum = unsafe {
            pg_sys::OidFunctionCall2Coll(
                pg_sys::Oid::from(pg_sys::F_TIMESTAMPTZ_PL_INTERVAL),
                pg_sys::Oid::INVALID,
                pg_sys::Datum::from(from.0),
                interval,
            )
        };
        Ok(Some(Timestamp(sum.value() as i64)))
    }

    /// How long a call waits at most; `usual` where nothing is said.
    pub fn timeout(self, name: &str, index: usize, usual: Duration) -> Result<Duration> {
        let Some(us) = self.opt_interval_us(name, index)? else {
            return Ok(usual);
        };
        u64::try_from(us)
            .map(Duration::from_micros)
            .map_err(|_| Error::out_of_range(name, self.shown_interval(index), "0 or more"))
    }

    /// An interval as the session writes it, for messages.
    pub fn shown_interval(self, index: usize) -> String {
        let Some(datum) = self.datum(index) else {
            return "NULL".to_owned();
        };
        // SAFETY: an interval, which is not NULL.
        let text = unsafe { interval::text_of(datum) };
        format!("\"{text}\"")
    }

    /// Whether a procedure may end transactions here: CALLed at top level, outside a block.
    pub fn is_nonatomic_call(self) -> bool {
        // SAFETY: fcinfo is valid; a CallContext node is what CALL passes (functioncmds.c).
        unsafe {
            let context = (*self.fcinfo).context;
            !context.is_null()
                && (*context).type_ == pg_sys::NodeTag::T_CallContext
                && !(*context.cast::<pg_sys::CallContext>()).atomic
        }
    }

    /// Refuses an answer of a procedure that is gone, because its extension was dropped while it waited: the server would look its result up
    /// in vain.
    fn require_here(self) {
        // SAFETY: fcinfo is valid; flinfo says which function was called.
        let is_here = unsafe {
            let function = pg_sys::Datum::from((*(*self.fcinfo).flinfo).fn_oid);
            let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
            let none = pg_sys::Datum::null();
            pg_sys::SearchSysCacheExists(cache, function, none, none, none)
        };
        if !is_here {
            ereport::raise(&installed::gone());
        }
    }

    /// Answers one row: as many values as the function has OUT parameters.
    pub fn answer_row(self, columns: &[Answer]) -> Answer {
        let (mut values, mut nulls) = unzipped(columns);
        self.require_here();
        // SAFETY: fcinfo is valid; the descriptor is of a row type, as wide as what is given.
        unsafe {
            let mut desc: pg_sys::TupleDesc = std::ptr::null_mut();
            let class = pg_sys::get_call_result_type(self.fcinfo, std::ptr::null_mut(), &mut desc);
            assert_eq!(class, pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE);
            assert_eq!((*desc).natts as usize, columns.len());
            let desc = pg_sys::BlessTupleDesc(desc);
            let tuple = pg_sys::heap_form_tuple(desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            Answer::Datum(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    }

    /// Answers a set, materialized: `fill` puts the rows.
    pub fn answer_rows(self, fill: impl FnOnce(&mut Rows) -> Result<()>) -> Result<Answer> {
        // SAFETY: fcinfo is valid; the protocol is that of InitMaterializedSRF (funcapi.c), spelled
        // out for the hint and for sets of scalars.
        let mut rows = unsafe { Rows::materialize(self.fcinfo)? };
        fill(&mut rows)?;
        Ok(Answer::Null)
    }

    /// # Safety
    /// Only at the edge: the answer is what the function returns.
    pub unsafe fn finish(self, answer: Answer) -> pg_sys::Datum {
        match answer {
            Answer::Null => {
                (*self.fcinfo).isnull = true;
                pg_sys::Datum::from(0usize)
            }
            Answer::Datum(datum) => datum,
        }
    }
}
