//! A job that waits, and is the answer to another request for its unique key, is no deeper than that: its state stays as it is.

use crate::errors::Result;
use crate::job::live;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;

// By its place, as a move among the finished ones.
static RISE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job j SET depth = $2, caused_by = $3 WHERE j.ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT8OID,
    ],
);

/// Makes a deeper job, whose row this transaction has locked, as deep as this, with the same cause; false where another has
/// locked it too: then one more comes beside it. As the extension's owner.
#[cold]
pub fn rise(job: i64, depth: i32, caused_by: Option<i64>) -> Result<bool> {
    let Some(free) = live::lock_if_free(job)? else {
        return Ok(false);
    };
    Ok(spi::run(&RISE, params![free.job.tid, depth as i16, caused_by]) > 0)
}
