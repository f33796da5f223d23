//! A call of a trigger function: what happened to which row of which table.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

use crate::errors::{Error, Result, SqlState};
use crate::pg::memory::Context;
use crate::pg::slot::{RowType, Slot};
use crate::pg::{function_catalog, identifier, text};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Insert,
    Update,
    Delete,
    Truncate,
}

extern "C-unwind" {
    /// Without the guard of the bindings: it raises nothing, and is called for each row.
    #[link_name = "pg_trigger_depth"]
    fn raw_pg_trigger_depth(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum;
}

/// How many triggers have fired each other, as pg_trigger_depth() has it.
pub fn depth() -> i32 {
    // SAFETY: reads a variable of the server's; the function looks at no argument.
    unsafe { raw_pg_trigger_depth(std::ptr::null_mut()).value() as i32 }
}

unsafe fn data_of(
    fcinfo: pg_sys::FunctionCallInfo,
    function: &str,
) -> Result<*const pg_sys::TriggerData> {
    let context = (*fcinfo).context;
    if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_TriggerData {
        return Err(misused(format!(
            "function {function} was not called as a trigger"
        )));
    }
    Ok(context.cast::<pg_sys::TriggerData>().cast_const())
}

/// The trigger that fires and its table, as SQL wants them written.
///
/// # Safety
/// `data` is that of a firing which is under way.
unsafe fn names(data: *const pg_sys::TriggerData) -> (String, String) {
    let trigger = text::from_c((*(*data).tg_trigger).tgname);
    let class = &*(*(*data).tg_relation).rd_rel;
    let schema = function_catalog::schema_name(class.relnamespace);
    let table = text::from_c(class.relname.data.as_ptr());
    let table = format!("{schema}.{}", identifier::quoted(&table));
    (identifier::quoted(&trigger), table)
}

#[cold]
fn misused(message: String) -> Error {
    Error::new(SqlState::TRIGGER_PROTOCOL_VIOLATED, message)
        .hint("pushy.watch(table) makes the triggers that call it.")
}

/// A statement that is about to write a table, before it does, or a row that was written: the firing of a trigger BEFORE a
/// STATEMENT or AFTER a ROW.
#[derive(Clone, Copy)]
pub struct Guarded {
    data: *const pg_sys::TriggerData,
}

impl Guarded {
    /// # Safety
    /// As for [`Firing::of`].
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
    /// As for [`Firing::of`].
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

/// What a trigger function answers to the server.
pub trait Answer {
    fn datum(self) -> pg_sys::Datum;
}

/// No row to put in the place of another.
impl Answer for () {
    fn datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(0usize)
    }
}

impl Answer for Becomes {
    fn datum(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.0)
    }
}

/// One firing of an AFTER trigger.
#[derive(Clone, Copy)]
pub struct Firing {
    data: *const pg_sys::TriggerData,
}

impl Firing {
    /// # Safety
    /// `fcinfo` is the one the function manager passed, and outlives the firing.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub unsafe fn of(fcinfo: pg_sys::FunctionCallInfo, function: &str) -> Result<Self> {
        let data = data_of(fcinfo, function)?;
        if (*data).tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK != pg_sys::TRIGGER_EVENT_AFTER {
            let (trigger, table) = names(data);
            return Err(misused(format!(
                "trigger {trigger} on table {table} must fire function {function} AFTER the change"
            )));
        }
        Ok(Self { data })
    }

    /// The trigger and its table, as SQL wants them written.
    pub fn names(self) -> (String, String) {
        // SAFETY: as above.
        unsafe { names(self.data) }
    }

    pub fn op(self) -> Op {
        // SAFETY: the data is valid for the length of the call; as in all that follow.
        let event = unsafe { (*self.data).tg_event } & pg_sys::TRIGGER_EVENT_OPMASK;
        match event {
            pg_sys::TRIGGER_EVENT_INSERT => Op::Insert,
            pg_sys::TRIGGER_EVENT_UPDATE => Op::Update,
            pg_sys::TRIGGER_EVENT_DELETE => Op::Delete,
            _ => Op::Truncate,
        }
    }

    pub fn is_for_row(self) -> bool {
        unsafe { (*self.data).tg_event & pg_sys::TRIGGER_EVENT_ROW != 0 }
    }

    /// An argument of the trigger, as CREATE TRIGGER has it.
    pub fn argument(&self, index: usize) -> Option<&CStr> {
        // SAFETY: tgnargs strings.
        unsafe {
            let trigger = (*self.data).tg_trigger;
            ((*trigger).tgnargs as usize > index)
                .then(|| CStr::from_ptr(*(*trigger).tgargs.add(index)))
        }
    }

    /// Whether the trigger has a condition, which the server has found to hold.
    pub fn has_condition(self) -> bool {
        unsafe { !(*(*self.data).tg_trigger).tgqual.is_null() }
    }

    pub fn trigger(self) -> Oid {
        unsafe { (*(*self.data).tg_trigger).tgoid }
    }

    /// The table whose row it is: of a partitioned one, the partition.
    pub fn relation(self) -> Oid {
        unsafe { (*(*self.data).tg_relation).rd_id }
    }

    /// The row type of that table.
    pub fn row_type(self, context: &Context) -> RowType {
        // SAFETY: the table is open for the length of the firing.
        unsafe { RowType::copied((*(*self.data).tg_relation).rd_att, context) }
    }

    /// The row before the change; None for an insert.
    pub fn old_row<'a>(self) -> Option<Slot<'a>> {
        let has_old = matches!(self.op(), Op::Update | Op::Delete);
        // SAFETY: of a row trigger, filled by AfterTriggerExecute.
        has_old.then(|| unsafe { Slot::new((*self.data).tg_trigslot) })
    }

    /// The row after the change; None for a delete.
    pub fn new_row<'a>(self) -> Option<Slot<'a>> {
        // SAFETY: as above.
        match self.op() {
            Op::Insert => Some(unsafe { Slot::new((*self.data).tg_trigslot) }),
            Op::Update => Some(unsafe { Slot::new((*self.data).tg_newslot) }),
            Op::Delete | Op::Truncate => None,
        }
    }
}
