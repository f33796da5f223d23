//! Numbers from a sequence of ours.

use pgrx::pg_sys::Oid;

use super::guard::guarded;

extern "C-unwind" {
    fn nextval_internal(relation: Oid, check_permissions: bool) -> i64;
}

/// The next value; raises when the sequence is exhausted, or on a standby.
pub fn next(sequence: Oid) -> i64 {
    // SAFETY: an existing sequence; an ERROR is turned into an unwinding by the guard.
    unsafe { guarded(|| nextval_internal(sequence, false)) }
}
