//! Locks on whole tables that are taken at once or not at all: nobody queues behind somebody who waits.

use pgrx::pg_sys;

use crate::pg::identity;

/// What a lock keeps away.
#[derive(Clone, Copy)]
pub enum Lock {
    /// Writers.
    Share,
    /// Everybody.
    AccessExclusive,
}

/// Locks a table of schema pushy_internal until the transaction ends; false when it is used, or not there.
pub fn try_lock(table: &str, lock: Lock) -> bool {
    let mode = match lock {
        Lock::Share => pg_sys::ShareLock,
        Lock::AccessExclusive => pg_sys::AccessExclusiveLock,
    };
    identity::internal_relation(table).is_some_and(|oid| {
        // SAFETY: inside a transaction, which lets go of it.
        unsafe { pg_sys::ConditionalLockRelationOid(oid, mode as pg_sys::LOCKMODE) }
    })
}
