//! A sequence as a place where a number is kept: read and set, and never drawn from, because nextval() makes its sequence the session's
//! last one, which lastval() answers from.

use pgrx::pg_sys::{self, Oid};
use pgrx::IntoDatum;

use crate::errors::Result;
use crate::params;
use crate::pg::installed;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;

/// Locks a sequence as setting it does, until the transaction ends: it may have been dropped while the lock was waited for.
pub fn lock(sequence: Oid) -> Result<()> {
    let mode = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: any number will do, and what is answered is open; the transaction keeps the lock.
    let is_there = unsafe {
        let relation = pg_sys::try_relation_open(sequence, mode);
        let is_there = !relation.is_null();
        if is_there {
            pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        is_there
    };
    is_there.then_some(()).ok_or_else(installed::gone)
}

/// Sets the last value; with the rights of the sequence's owner.
pub fn set(sequence: Oid, value: i64) {
    // SAFETY: an existing sequence; a value out of its range raises.
    unsafe {
        pgrx::direct_function_call::<i64>(
            pg_sys::setval_oid,
            &[sequence.into_datum(), value.into_datum()],
        );
    }
}

static LAST: Plan = Plan::new(
    "SELECT COALESCE(pg_catalog.pg_sequence_last_value($1), 0)",
    &[BuiltinOid::OIDOID],
);

/// The last value; 0: it has none yet. With the rights of the sequence's owner.
pub fn last(sequence: Oid) -> i64 {
    spi::connect(|spi| spi.run(&LAST, params![sequence]).row(0).i64(1))
}
