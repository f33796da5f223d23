//! job_extend: a claim holds for longer, and its worker says how far it is.

use crate::errors::{Error, Result};
use crate::job::lease::leased_job;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Uuid;
use crate::pg::{clock, identity, text, transaction, BuiltinOid};
use crate::queue::lease_length::{end_of, read_lease};
use crate::shared::pending;
use crate::sql_function;

sql_function!(pushy_job_extend_v1, |call| {
    transaction::require_writable(c"pushy.job_extend()");
    let (job, token) = (call.i64("job_id", 0)?, call.uuid("token", 1)?);
    let lease_us = read_lease(call, "lease", 2)?;
    extend(job, token, lease_us, call.opt_f64(3), call.opt_text(4)?)
});

/// Bytes kept of a message.
const MOST: usize = 128;

static EXTEND: Plan = Plan::new(
    "UPDATE pushy_internal.lease SET until = $2, said_at = $6, session = $5, fraction = COALESCE($3::pg_catalog.float4, fraction), message = COALESCE($4, message) \
      WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::FLOAT8OID,
        BuiltinOid::TEXTOID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// False: the caller holds the job no longer.
pub(super) fn extend(
    job: i64,
    token: Uuid,
    lease_us: Option<i64>,
    fraction: Option<f64>,
    message: Option<String>,
) -> Result<bool> {
    if let Some(wrong) = fraction.filter(|fraction| !(0.0..=1.0).contains(fraction)) {
        return Err(Error::out_of_range("fraction", wrong, "0 to 1"));
    }
    let Some(leased) = leased_job::find(job, token)? else {
        return Ok(false);
    };
    let (lease, now) = (&leased.lease, clock::now());
    let (until, session) = match (lease_us, lease.session) {
        // It goes on until that session ends.
        (None, Some(_)) => (lease.until, lease.session),
        // As long again as was said when it was claimed, or extended last.
        _ => end_of(lease_us.unwrap_or_else(|| lease.length_us()), now),
    };
    let message = message
        .as_deref()
        .map(|message| text::cut_utf8(message, MOST));
    identity::as_owner(|| {
        spi::run(
            &EXTEND,
            params![lease.tid, until, fraction, message, session, now],
        );
        Ok(())
    })?;
    pending::lease_said(leased.queue.key(), now.0, until.0);
    Ok(true)
}
