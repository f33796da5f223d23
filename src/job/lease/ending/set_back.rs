//! Leases after the clock was set back: they hold from now on, as long as they were said to.

use super::walk::is_gone;
use crate::errors::Result;
use crate::job::live;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::BuiltinOid;

static LATER: Plan = Plan::new(
    "SELECT l.job_id FROM pushy_internal.lease l \
      WHERE l.job_id OPERATOR(pg_catalog.>) $1 AND l.said_at OPERATOR(pg_catalog.>) $2 ORDER BY l.job_id LIMIT $3",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
    ],
);

/// Up to `most` jobs, behind that one, with a lease that was claimed or extended later than `now`: the clock was set back. As the extension's
/// owner.
pub fn later(after: i64, now: Timestamp, most: usize) -> Vec<i64> {
    spi::connect(|spi| {
        let found = spi.run(&LATER, params![after, now, most as i64]);
        found.rows().map(|row| row.i64(1)).collect()
    })
}

static FROM_NOW: Plan = Plan::new(
    "UPDATE pushy_internal.lease SET leased_at = LEAST(leased_at, $2), said_at = $2, \
            until = CASE WHEN until OPERATOR(pg_catalog.<) 'infinity'::pg_catalog.timestamptz \
                         THEN $2 OPERATOR(pg_catalog.+) (until OPERATOR(pg_catalog.-) said_at) ELSE until END \
      WHERE job_id OPERATOR(pg_catalog.=) $1 AND said_at OPERATOR(pg_catalog.>) $2",
    &[BuiltinOid::INT8OID, BuiltinOid::TIMESTAMPTZOID],
);

/// Has a lease that was claimed or extended later than `now` hold from then on, as long as it was said to; false when somebody holds the job.
/// As the extension's owner.
pub fn set_back(id: i64, now: Timestamp) -> Result<bool> {
    if live::lock_if_free(id)?.is_none() {
        return is_gone(id);
    }
    spi::run(&FROM_NOW, params![id, now]);
    Ok(true)
}
