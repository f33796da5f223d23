//! Whether the jobs of a queue keep the numbers that they have in the dump.

use pushy_core::loaded;

use super::{ask, Link, Loading};
use crate::errors::Result;
use crate::params;
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid};
use crate::shared::numbers::NEVER;

// The second: those of another database keep theirs.
static KEEPS: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND l.number_there IS NOT NULL), \
            EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.number_there OPERATOR(pg_catalog.>) 0 \
                       AND NOT (l.number_there OPERATOR(pg_catalog.>=) $2 AND l.number_there OPERATOR(pg_catalog.<=) $3))",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

static KEEP: Plan = Plan::for_any_values(
    "INSERT INTO pushy_internal.loaded_queue (queue_id, number_there) VALUES ($1, $2)",
    &[BuiltinOid::INT4OID, BuiltinOid::INT4OID],
);

impl Loading {
    /// Whether jobs of the queue keep their numbers, as far as these are below ours. Once known it stays: where anything was loaded of it,
    /// `loaded_queue` says so.
    pub(super) fn keeps(&mut self, queue: i32, link: Link) -> Result<bool> {
        if let Some(keeps) = link.keeps {
            return Ok(keeps);
        }
        let keeps = link.step == 0 && self.find_keeps(queue, link.number)?;
        self.queues.insert(
            queue,
            Link {
                keeps: Some(keeps),
                ..link
            },
        );
        Ok(keeps)
    }

    #[cold]
    fn find_keeps(&self, queue: i32, number: i32) -> Result<bool> {
        // Neighbours too: numbers of one database's queues may go over such a bound.
        let group = loaded::group(queue);
        let (first, last) = (
            (group - 1).saturating_mul(1 << 16),
            (group + 2).saturating_mul(1 << 16),
        );
        let known = || {
            ask(&KEEPS, params![number, first, last], |row| {
                (row.bool(1), row.bool(2))
            })
        };
        if known()?.0 {
            return Ok(true);
        }
        let table = identity::expect_relation("loaded_queue")?;
        // One at a time, because two loads of different databases cannot both be the first.
        let keeps = object_lock::briefly(table, || {
            // Before the table: whose lock is gone has left its row there.
            let lock = i64::from(queue as u32);
            let open = params![table, lock, first, last];
            let (of_same, are_open_others) = ask(&OPEN, open, |row| (row.bool(1), row.bool(2)))?;
            let (is_known, are_others) = known()?;
            let are_others = queue > 0 && (are_others || are_open_others);
            let keeps = is_known || of_same || (self.drawn_from()? == NEVER && !are_others);
            if keeps {
                let number = Number(queue as u32, KEEPER);
                object_lock::lock("loaded_queue", number, LockMode::Shared, || Ok(()))?;
            }
            Ok(keeps)
        })?;
        if keeps {
            identity::as_owner(|| {
                spi::run(&KEEP, params![number, queue]);
                Ok(())
            })?;
        }
        Ok(keeps)
    }
}

/// A lock on a queue's number in its dump, held by each transaction that loads what keeps its numbers: what such a one has written, nobody else sees
/// yet. The server lets go of it with the savepoint in which it was taken.
const KEEPER: u16 = 1;

// The first: this transaction has begun to keep numbers, and the rest of it is of the same load; or another has, of this queue.
static OPEN: Plan = Plan::for_any_values(
    "SELECT COALESCE(pg_catalog.bool_or(l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() OR l.objid::pg_catalog.int8 OPERATOR(pg_catalog.=) $2), false), \
            COALESCE(pg_catalog.bool_or(l.objid::pg_catalog.int8 OPERATOR(pg_catalog.>) 0 AND l.objid::pg_catalog.int8 OPERATOR(pg_catalog.<=) 2147483647 \
                       AND NOT (l.objid::pg_catalog.int8 OPERATOR(pg_catalog.>=) $3 AND l.objid::pg_catalog.int8 OPERATOR(pg_catalog.<=) $4)), false) \
       FROM pg_catalog.pg_locks l \
      WHERE l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text AND l.granted AND l.classid OPERATOR(pg_catalog.=) $1 \
        AND l.objsubid OPERATOR(pg_catalog.=) 1 \
        AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
    &[
        BuiltinOid::OIDOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT4OID,
    ],
);
