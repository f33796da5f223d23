//! Payloads that are too long for NOTIFY: kept for a while, and read with pushy.notice(id).

use std::sync::atomic::AtomicU64;

use crate::channel::access::{self, Share};
use crate::errors::{Error, Result, SqlState};
use crate::job::history;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, heap, identity, random, transaction, BuiltinOid};
use crate::shared::pending;
use crate::{settings, sql_function};

static CHECKED: AtomicU64 = AtomicU64::new(0);
const COLUMNS: &[&str] = &["id", "expires_at", "lsn", "channel", "payload", "topic"];

/// Keeps a payload for a channel and a topic, all in the server's encoding, and answers its number: one that cannot be guessed,
/// for whoever has it has heard of the notice.
pub fn keep(channel: &[u8], topic: Option<&[u8]>, payload: &[u8]) -> Result<i64> {
    identity::as_owner(|| {
        let id = random::secret_number()?;
        let position = transaction::wal_position();
        let table = heap::open("oversize_notice")?;
        heap::check_columns(&table, COLUMNS, &CHECKED)?;
        let expires_at = clock::now().plus_us(settings::notice_keep_us());
        table.append(std::iter::once(
            params![id, expires_at, position, channel, payload, topic].to_vec(),
        ));
        pending::due(history::removal_due(expires_at));
        Ok(id)
    })
}

static READ: Plan = Plan::new(
    "SELECT n.payload, n.channel, n.lsn, n.topic FROM pushy_internal.oversize_notice n WHERE n.id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID],
);

sql_function!(pushy_notice_v1, |call| {
    let id = call.i64("id", 0)?;
    let found = identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(&READ, params![id]).first().map(|row| {
                (
                    row.opt_bytes(1).unwrap_or_default(),
                    row.opt_bytes(2).unwrap_or_default(),
                    row.i64(3),
                    row.opt_bytes(4),
                )
            })
        }))
    })?;
    let caller = identity::current_user();
    let heard = match found {
        // Who was let in later, or for other topics, has not heard it: for that role it is not there.
        Some((payload, channel, position, topic)) => {
            let readable = access::require(&[channel], caller)?;
            let share = readable[0].share(topic.as_deref(), position);
            (share == Share::Notice).then_some(payload)
        }
        None => None,
    };
    heard.ok_or_else(|| {
        Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("notice {id} does not exist"),
        )
        .hint("Payloads are kept for pushy.notice_keep; read the table itself, whose key the notice has.")
    })
});

static EXPIRE: Plan = Plan::new(
    "WITH old AS (SELECT n.id FROM pushy_internal.oversize_notice n WHERE n.expires_at OPERATOR(pg_catalog.<=) $1 LIMIT $2 FOR UPDATE SKIP LOCKED) \
     DELETE FROM pushy_internal.oversize_notice n USING old WHERE n.id OPERATOR(pg_catalog.=) old.id",
    &[BuiltinOid::TIMESTAMPTZOID, BuiltinOid::INT8OID],
);

/// Removes up to `most` that are kept no longer; answers how many. As the extension's owner.
pub fn expire(most: i64) -> u64 {
    spi::run(&EXPIRE, params![clock::now(), most])
}
