//! Numbers from a sequence of ours.

use pgrx::pg_sys::{self, Oid};
use pgrx::IntoDatum;

use super::guard::guarded;

extern "C-unwind" {
    fn nextval_internal(relation: Oid, check_permissions: bool) -> i64;
}

/// Sets the last value; with the rights of the sequence's owner.
pub fn set(sequence: Oid, value: i64) {
    // SAFETY: an existing sequence, and a value in its range, which is that of the type.
    unsafe {
        pgrx::direct_function_call::<i64>(
            pg_sys::setval_oid,
            &[sequence.into_datum(), value.into_datum()],
        );
    }
}

/// The next value; raises when the sequence is exhausted, or on a standby.
pub fn next(sequence: Oid) -> i64 {
    // SAFETY: an existing sequence; an ERROR is turned into an unwinding by the guard.
    unsafe { guarded(|| nextval_internal(sequence, false)) }
}
