//! Numbers from a sequence of ours. A role with pg_write_all_data may set any of them, and a sequence has no trigger to keep
//! it out: each of ours is a CYCLE, and who draws passes over what is in use.

use pgrx::pg_sys::{self, Oid};
use pgrx::IntoDatum;

use crate::pg::guard::guarded;
use crate::pg::spi::{self, Plan};

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

/// A number that nothing holds: `plan` draws one, and says of it in its second column whether something does. As the
/// extension's owner.
pub fn next_free(plan: &Plan) -> i32 {
    spi::connect(|spi| loop {
        let drawn = spi.run(plan, &[]);
        if !drawn.row(0).bool(2) {
            return drawn.row(0).i32(1);
        }
    })
}
