//! A lock that makes those who share something take turns, until the end of their transactions.

use pgrx::pg_sys;

use super::identity;

/// Waits for its turn at one thing that a table of ours has, known by its number there: a number that nobody chooses, for
/// two things that share one take turns as well. Writes nothing. On a standby there is nothing to take turns for.
pub fn take(table: &str, number: u32) {
    let Some(table) = identity::pushy_relation(table) else {
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
