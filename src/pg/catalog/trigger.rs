//! Triggers as objects: made and dropped by code that has checked who may.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use crate::errors::{Error, Result, SqlState};
use crate::pg::catch::caught;
use crate::pg::identity::{self, Author};
use crate::pg::{identifier, literals, search_path, text, utility};

/// Keeps everybody else from changing a table's triggers, and from writing it, until the transaction ends.
pub fn lock_table(relation: Oid) -> Result<()> {
    // What CREATE TRIGGER takes.
    crate::pg::table_lock::wait_for(relation, pg_sys::ShareRowExclusiveLock)
}

/// Whether the current user may make triggers on a table; not on one that is gone.
pub fn may_create_on(relation: Oid) -> bool {
    let mut is_missing = false;
    // SAFETY: an ACL look-up, which notes a missing table instead of raising.
    let may = unsafe {
        pg_sys::pg_class_aclcheck_ext(
            relation,
            identity::current_user(),
            pg_sys::ACL_TRIGGER as pg_sys::AclMode,
            &mut is_missing,
        )
    };
    may == pg_sys::AclResult::ACLCHECK_OK && !is_missing
}

/// Runs a CREATE TRIGGER with the rights of who wrote what is in it, along the search path that holds. Its condition is read and
/// nothing of it runs, whoever has made what it names. An error must go on: nothing is undone here.
pub fn create(table: Oid, statement: &str, author: Author) -> Result<()> {
    create_with(table, statement, author, Events::Fire)
}

/// Whether event triggers fire for it.
#[derive(Clone, Copy)]
enum Events {
    Fire,
    /// It is part of another statement, for which they fire.
    Ignore,
}

fn create_with(table: Oid, statement: &str, author: Author, events: Events) -> Result<()> {
    identity::expect_no_owner();
    let statement = CString::new(text::encode(statement).as_ref()).map_err(|_| {
        Error::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            "a statement cannot hold a NUL",
        )
    })?;
    let read = || {
        let parsed = identifier::parsed(&statement)?;
        // SAFETY: raw_parser answers a list of RawStmt, whose types are checked; the table is locked. Errors unwind, and the
        // abort cleans up.
        unsafe {
            let node = match pg_sys::list_length(parsed) {
                1 => (*pg_sys::list_nth(parsed, 0).cast::<pg_sys::RawStmt>()).stmt,
                _ => std::ptr::null_mut(),
            };
            assert!(!node.is_null() && (*node).type_ == pg_sys::NodeTag::T_CreateTrigStmt);
            let create = node.cast::<pg_sys::CreateTrigStmt>();
            if !(*create).whenClause.is_null() {
                literals::give_types((*create).whenClause, table, &statement);
            }
            match events {
                Events::Fire => utility::run(node, &statement),
                Events::Ignore => {
                    let none = pg_sys::Oid::INVALID;
                    let no_condition = std::ptr::null_mut();
                    pg_sys::CreateTrigger(
                        create,
                        statement.as_ptr(),
                        none,
                        none,
                        none,
                        none,
                        none,
                        none,
                        no_condition,
                        false,
                        false,
                    );
                    pg_sys::CommandCounterIncrement();
                }
            }
        }
        Ok(())
    };
    caught(|| identity::as_author(author, read)).and_then(|outcome| outcome)
}

/// The same with names looked up in pg_catalog only: for what the server has written under that path. Event triggers do not
/// fire: they would run as the author and under that path, inside of a statement for which they fire anyway.
pub fn create_again(table: Oid, statement: &str, author: Author) -> Result<()> {
    let _pinned = search_path::pin();
    create_with(table, statement, author, Events::Ignore)
}

/// Makes a trigger fire as `state`, a value of pg_trigger.tgenabled, says: what ALTER TABLE ONLY … DISABLE TRIGGER and the like do.
/// Event triggers do not fire for it, because it is part of another statement for which they fire.
pub fn switch(table: Oid, trigger: &str, state: u8) -> Result<()> {
    let name = CString::new(text::encode(trigger).as_ref()).expect("no NUL in a name");
    let switched = || {
        // SAFETY: a table that the running statement has locked, and a parse node of ours, which is copied. What follows an outer
        // statement's end must not be collected for it: the server has no command then to which this would belong.
        unsafe {
            let command =
                pg_sys::palloc0(size_of::<pg_sys::AlterTableCmd>()).cast::<pg_sys::AlterTableCmd>();
            (*command).type_ = pg_sys::NodeTag::T_AlterTableCmd;
            (*command).subtype = match state {
                b'D' => pg_sys::AlterTableType::AT_DisableTrig,
                b'R' => pg_sys::AlterTableType::AT_EnableReplicaTrig,
                _ => pg_sys::AlterTableType::AT_EnableAlwaysTrig,
            };
            (*command).name = pg_sys::pstrdup(name.as_ptr());
            let commands = pg_sys::lappend(std::ptr::null_mut(), command.cast());
            pg_sys::AlterTableInternal(table, commands, false);
            pg_sys::CommandCounterIncrement();
        }
        Ok(())
    };
    // SAFETY: sets a flag of the outermost statement for which event triggers fire, if there is one.
    unsafe { pg_sys::EventTriggerInhibitCommandCollection() };
    let outcome = caught(switched);
    // SAFETY: as above.
    unsafe { pg_sys::EventTriggerUndoInhibitCommandCollection() };
    outcome.and_then(|outcome| outcome)
}

/// Locks a table as ALTER TABLE does that changes a column.
pub fn lock_exclusively(relation: Oid) -> Result<()> {
    crate::pg::table_lock::wait_for(relation, pg_sys::AccessExclusiveLock)
}

/// The trigger of this name on a table.
pub fn find(relation: Oid, name: &str) -> Option<Oid> {
    let name = CString::new(text::encode(name).as_ref()).ok()?;
    // SAFETY: a catalog look-up; told that it may be missing, it raises nothing.
    let oid = unsafe { pg_sys::get_trigger_oid(relation, name.as_ptr(), true) };
    (oid != Oid::INVALID).then_some(oid)
}

/// Drops a trigger with its copies on partitions, whoever owns the table: its maker may always take it back.
/// The caller has locked the table.
pub fn drop(trigger: Oid) {
    let object = pg_sys::ObjectAddress {
        classId: pg_sys::TriggerRelationId,
        objectId: trigger,
        objectSubId: 0,
    };
    // SAFETY: an existing trigger; nothing depends on one but its copies.
    unsafe {
        pg_sys::performDeletion(
            &object,
            pg_sys::DropBehavior::DROP_RESTRICT,
            pg_sys::PERFORM_DELETION_INTERNAL as i32,
        );
        pg_sys::CommandCounterIncrement();
    }
}
