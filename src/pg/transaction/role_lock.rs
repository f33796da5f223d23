//! A lock on a role, for what is counted per role: the next of its transactions that adds to the count waits for the end of
//! this one. Nobody else's does.

use pgrx::pg_sys::{self, Oid};

/// Until the transaction ends. It conflicts with itself and with DROP ROLE, and with nothing that only refers to the role.
pub fn lock(role: Oid) {
    // SAFETY: inside a transaction; a wait ends with the lock or an ERROR, which the guard of the bindings turns into an unwinding.
    unsafe {
        pg_sys::LockSharedObject(
            pg_sys::AuthIdRelationId,
            role,
            0,
            pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE,
        );
    }
}
