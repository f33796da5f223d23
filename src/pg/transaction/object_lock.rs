//! A lock by which transactions take turns at something that they share; each holds it until its end.

use pgrx::pg_sys;

use crate::pg::identity;

/// Waits until no other transaction holds lock `number` on our table `table`, and holds it until this one ends. Numbers are
/// not reserved: two users of the same number wait for each other. Writes nothing; on a standby it does nothing.
pub fn take(table: &str, number: u32) {
    let Some(table) = identity::internal_relation(table) else {
        return;
    };
    // SAFETY: inside a transaction, whose end releases it; an object lock names nothing that must exist.
    unsafe {
        if !pg_sys::RecoveryInProgress() {
            pg_sys::LockDatabaseObject(
                table,
                pg_sys::Oid::from(number),
                0,
                pg_sys::ExclusiveLock as pg_sys::LOCKMODE,
            );
        }
    }
}
