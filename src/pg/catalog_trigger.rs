//! Triggers as objects: made and dropped by code that has checked who may.

use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use super::identity::{self, Author};
use super::search_path;
use super::{failure, text};
use crate::errors::Result;

/// Keeps everybody else from changing a table's triggers, and from writing it, until the transaction ends.
pub fn lock_table(relation: Oid) {
    // SAFETY: what CREATE TRIGGER takes; waits as lock_timeout allows.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::ShareRowExclusiveLock as pg_sys::LOCKMODE) }
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

/// Runs a CREATE TRIGGER with the rights of who wrote what is in it, along the search path that holds. Its error must go on:
/// nothing is undone here.
pub fn create(statement: &str, author: Author) -> Result<()> {
    failure::catch(|| super::spi::command_of(author, statement))
        .unwrap_or_else(|failure| Err(failure.into_error()))
}

/// The same with names looked up in pg_catalog only: for what the server has written under that path.
pub fn create_again(statement: &str, author: Author) -> Result<()> {
    let _pinned = search_path::pin();
    create(statement, author)
}

/// Locks a table as ALTER TABLE does that changes a column.
pub fn lock_exclusively(relation: Oid) {
    // SAFETY: waits as lock_timeout allows.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE) }
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
