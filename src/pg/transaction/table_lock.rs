//! Locks on whole tables: on ours they are taken at once or not at all, so that nobody queues behind somebody who waits.

use pgrx::pg_sys::{self, Oid};

use super::object_lock::prepared_locks;
use super::prepared_wait;
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid};

/// What a lock keeps away.
#[derive(Clone, Copy)]
pub enum Lock {
    /// Writers.
    Share,
    /// Everybody.
    AccessExclusive,
}

/// Locks a table of schema pushy_internal until the transaction ends; false when it is used, or not there.
pub fn try_lock(table: &str, lock: Lock) -> bool {
    let mode = match lock {
        Lock::Share => pg_sys::ShareLock,
        Lock::AccessExclusive => pg_sys::AccessExclusiveLock,
    };
    identity::internal_relation(table).is_some_and(|oid| {
        // SAFETY: inside a transaction, which lets go of it.
        unsafe { pg_sys::ConditionalLockRelationOid(oid, mode as pg_sys::LOCKMODE) }
    })
}

/// Locks any table until the transaction ends; waits as lock_timeout allows.
pub(in crate::pg) fn wait_for(table: Oid, mode: u32) -> Result<()> {
    let mode = mode as pg_sys::LOCKMODE;
    // SAFETY: inside a transaction, which lets go of it.
    if unsafe { pg_sys::ConditionalLockRelationOid(table, mode) } {
        return Ok(());
    }
    say_which(table)?;
    // SAFETY: as above.
    unsafe { pg_sys::LockRelationOid(table, mode) }
    Ok(())
}

// Modes in which a table is only read are in the way of few.
static PREPARED_HOLDER: Plan = Plan::new(
    concat!(
        "SELECT x.gid",
        prepared_locks!(),
        " AND l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text AND l.granted \
          AND l.relation OPERATOR(pg_catalog.=) $1 AND l.mode OPERATOR(pg_catalog.<>) 'AccessShareLock'::pg_catalog.text \
          AND l.mode OPERATOR(pg_catalog.<>) 'RowShareLock'::pg_catalog.text ORDER BY x.prepared LIMIT 1"
    ),
    &[BuiltinOid::OIDOID],
);

#[cold]
fn say_which(table: Oid) -> Result<()> {
    let holder = identity::as_owner(|| {
        spi::connect(|spi| {
            let found = spi.run(&PREPARED_HOLDER, params![table]);
            found.first().map(|row| row.text(1)).transpose()
        })
    })?;
    if let Some(gid) = holder {
        let table = identity::quoted_name(table).unwrap_or_default();
        prepared_wait::say(&format!("table {table}"), "has changed it", &gid);
    }
    Ok(())
}

static PREPARED_HOLDERS: Plan = Plan::new(
    concat!(
        "SELECT x.gid, pg_catalog.min(l.relation::pg_catalog.regclass::pg_catalog.text)",
        prepared_locks!(),
        " AND l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text AND l.granted \
          AND EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.oid OPERATOR(pg_catalog.=) l.relation AND c.relkind OPERATOR(pg_catalog.=) 'r'::pg_catalog.\"char\" \
                         AND c.relnamespace OPERATOR(pg_catalog.=) 'pushy_internal'::pg_catalog.regnamespace) GROUP BY x.gid ORDER BY 1"
    ),
    &[],
);

/// Before a script changes our tables, for which it may have to wait: a WARNING for each prepared transaction that has used one, and that one. As
/// whoever runs the script.
pub fn say_who_has_prepared() -> Result<()> {
    let held: Vec<(String, String)> = spi::connect(|spi| {
        let found = spi.run(&PREPARED_HOLDERS, &[]);
        let read = |row: spi::Row<'_>| Ok((row.text(1)?, row.text(2)?));
        found.rows().map(read).collect::<Result<_>>()
    })?;
    for (gid, table) in held {
        prepared_wait::warn(
            "the script of extension pushy",
            &format!("has used table {table}"),
            &gid,
        );
    }
    Ok(())
}
