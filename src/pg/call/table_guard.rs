//! Firings of the triggers that guard our own tables: a statement that is about to write one, and a row that arrives there.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use super::trigger::{data_of, misused, Answer};
use crate::errors::Result;
use crate::pg::text;

/// A statement that is about to write a table, before it does, or a row that was written: the firing of a trigger BEFORE a
/// STATEMENT or AFTER a ROW.
#[derive(Clone, Copy)]
pub struct Guarded {
    data: *const pg_sys::TriggerData,
}

impl Guarded {
    /// # Safety
    /// As for [`Firing::of`](super::trigger::Firing::of).
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo, function: &str) -> Result<Self> {
        let data = data_of(fcinfo, function)?;
        // Before a row it would have to answer one.
        let event = (*data).tg_event;
        let is_after = event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_AFTER;
        if event & pg_sys::TRIGGER_EVENT_ROW != 0 && !is_after {
            return Err(misused(format!(
                "function {function} must be fired FOR EACH STATEMENT, or AFTER a row"
            )));
        }
        Ok(Self { data })
    }

    /// The owner of the table.
    pub fn owner(self) -> Oid {
        // SAFETY: the table is open for the length of the firing; as in what follows.
        unsafe { (*(*(*self.data).tg_relation).rd_rel).relowner }
    }

    /// The name of the table, without its schema.
    pub fn table(self) -> String {
        unsafe { text::from_c((*(*(*self.data).tg_relation).rd_rel).relname.data.as_ptr()) }
    }

    pub fn is_insert(self) -> bool {
        unsafe {
            (*self.data).tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_INSERT
        }
    }

    /// Whether CREATE TRIGGER gave the trigger this argument, first of all.
    pub fn has_argument(self, argument: &CStr) -> bool {
        // SAFETY: tgnargs strings.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            (*trigger).tgnargs > 0 && CStr::from_ptr(*(*trigger).tgargs) == argument
        }
    }
}

/// A row that is about to be inserted: the firing of a BEFORE INSERT … FOR EACH ROW trigger.
#[derive(Clone, Copy)]
pub struct Arriving {
    data: *const pg_sys::TriggerData,
}

/// What becomes of it.
pub struct Becomes(*mut pg_sys::HeapTupleData);

impl Arriving {
    /// # Safety
    /// As for [`Firing::of`](super::trigger::Firing::of).
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo, function: &str) -> Result<Self> {
        let data = data_of(fcinfo, function)?;
        const EVENT: u32 =
            pg_sys::TRIGGER_EVENT_INSERT | pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_BEFORE;
        const PARTS: u32 = pg_sys::TRIGGER_EVENT_OPMASK
            | pg_sys::TRIGGER_EVENT_ROW
            | pg_sys::TRIGGER_EVENT_TIMINGMASK;
        if (*data).tg_event & PARTS != EVENT {
            return Err(misused(format!(
                "function {function} must be fired BEFORE INSERT FOR EACH ROW"
            )));
        }
        Ok(Self { data })
    }

    /// The owner of the table.
    pub fn owner(self) -> Oid {
        Guarded { data: self.data }.owner()
    }

    /// The name of the table, without its schema.
    pub fn table(self) -> String {
        Guarded { data: self.data }.table()
    }

    /// It is inserted as it is.
    pub fn let_in(self) -> Becomes {
        // SAFETY: the row of an insertion, which the server takes back unchanged.
        Becomes(unsafe { (*self.data).tg_trigtuple })
    }

    /// It is not inserted.
    pub fn pass_over(self) -> Becomes {
        Becomes(std::ptr::null_mut())
    }

    fn value(self, column: &CStr) -> Option<pg_sys::Datum> {
        let mut is_null = true;
        // SAFETY: the row of an insertion and its descriptor; the columns that are asked for are never virtual.
        unsafe {
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let number = pg_sys::SPI_fnumber(descriptor, column.as_ptr());
            if number <= 0 {
                return None;
            }
            let row = (*self.data).tg_trigtuple;
            let value = pg_sys::SPI_getbinval(row, descriptor, number, &mut is_null);
            (!is_null).then_some(value)
        }
    }

    /// The value of a column of this type; None: it is NULL, or the table has none of this name.
    pub fn int4(self, column: &CStr) -> Option<i32> {
        self.value(column).map(|value| value.value() as i32)
    }

    pub fn int8(self, column: &CStr) -> Option<i64> {
        self.value(column).map(|value| value.value() as i64)
    }

    pub fn uuid(self, column: &CStr) -> Option<pg_sys::Datum> {
        self.value(column)
    }

    pub fn text(self, column: &CStr) -> Result<Option<String>> {
        // SAFETY: the column is of type text, as the caller says.
        self.value(column)
            .map(|value| unsafe { text::from_datum(value) })
            .transpose()
    }

    /// It is inserted with other values in these columns, which the table has, of types that are passed by value.
    pub fn with(self, columns: &[(&CStr, pg_sys::Datum)]) -> Becomes {
        // SAFETY: as above; the new row is made in the memory of the firing, as the server expects it.
        unsafe {
            let descriptor = (*(*self.data).tg_relation).rd_att;
            let mut numbers: Vec<i32> = columns
                .iter()
                .map(|(column, _)| pg_sys::SPI_fnumber(descriptor, column.as_ptr()))
                .collect();
            let mut values: Vec<pg_sys::Datum> = columns.iter().map(|(_, value)| *value).collect();
            let mut nulls = vec![false; columns.len()];
            Becomes(pg_sys::heap_modify_tuple_by_cols(
                (*self.data).tg_trigtuple,
                descriptor,
                columns.len() as i32,
                numbers.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            ))
        }
    }
}

impl Answer for Becomes {
    fn datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0)
    }
}
