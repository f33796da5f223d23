//! Payloads that are too long for NOTIFY: kept for a while, and read with pushy.notice(id).

use std::sync::atomic::AtomicU32;

use crate::errors::{Error, Result, SqlState};
use crate::job::history;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, heap, identity, sequence, BuiltinOid};
use crate::shared::pending;
use crate::{settings, sql_function};

static CHECKED: AtomicU32 = AtomicU32::new(0);
const COLUMNS: &[&str] = &["id", "expires_at", "payload"];

/// Keeps a payload, in the server's encoding, and answers its number.
pub fn keep(payload: &[u8]) -> Result<i64> {
    identity::as_owner(|| {
        let id = sequence::next(identity::expect_relation("notice_id_seq")?);
        let table = heap::open("oversize_notice")?;
        heap::check_columns(&table, COLUMNS, &CHECKED)?;
        let expires_at = clock::now().plus_us(settings::notice_keep_us());
        table.append(std::iter::once(params![id, expires_at, payload].to_vec()));
        pending::due(history::removal_due(expires_at));
        Ok(id)
    })
}

static READ: Plan = Plan::new(
    "SELECT n.payload FROM pushy.oversize_notice n WHERE n.id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID],
);

sql_function!(pushy_notice, |call| {
    let id = call.i64("id", 0)?;
    let found = identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(&READ, params![id])
                .first()
                .and_then(|row| row.opt_bytes(1))
        }))
    })?;
    found.ok_or_else(|| {
        Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("notice {id} does not exist"),
        )
        .hint("Payloads are kept for pushy.notice_keep; read the table itself, whose key the notice has.")
    })
});

static EXPIRE: Plan = Plan::new(
    "WITH old AS (SELECT n.id FROM pushy.oversize_notice n WHERE n.expires_at OPERATOR(pg_catalog.<=) $1 LIMIT $2 FOR UPDATE SKIP LOCKED) \
     DELETE FROM pushy.oversize_notice n USING old WHERE n.id OPERATOR(pg_catalog.=) old.id",
    &[BuiltinOid::TIMESTAMPTZOID, BuiltinOid::INT8OID],
);

/// Removes up to `most` that are kept no longer; answers how many. As the extension's owner.
pub fn expire(most: i64) -> u64 {
    spi::run(&EXPIRE, params![clock::now(), most])
}
