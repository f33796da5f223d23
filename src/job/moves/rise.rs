//! A job that waits, and is the answer to another request for its unique key, is no deeper than that: its state stays as it is.

use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;

// Not where another transaction was answered the job too, because that would be waited for.
static RISE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job j SET depth = $2, caused_by = $3 \
       FROM (SELECT l.id FROM pushy_internal.live_job l WHERE l.id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED) free \
      WHERE j.id OPERATOR(pg_catalog.=) free.id",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT8OID,
    ],
);

/// Makes a deeper job, whose row this transaction has locked, as deep as this, with the same cause; false where another has
/// locked it too: then one more comes beside it. As the extension's owner.
#[cold]
pub fn rise(job: i64, depth: i32, caused_by: Option<i64>) -> bool {
    spi::run(&RISE, params![job, depth as i16, caused_by]) > 0
}
