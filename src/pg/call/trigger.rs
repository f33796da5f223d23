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

/// # Safety
/// `fcinfo` is the one the function manager passed.
pub(super) unsafe fn data_of(
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
pub(super) fn misused(message: String) -> Error {
    Error::new(SqlState::TRIGGER_PROTOCOL_VIOLATED, message)
        .hint("pushy.watch(table) makes the triggers that call it.")
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
