//! A lock on a role, for what is counted per role: the next of its transactions that adds to the count waits for the end of
//! this one. Nobody else's does.

use pgrx::pg_sys::{self, Oid};

use super::prepared_wait;
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identifier, identity, BuiltinOid};

/// It conflicts with itself and with DROP ROLE, and with nothing that only refers to the role.
const MODE: pg_sys::LOCKMODE = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;

/// Until the transaction ends.
pub fn lock(role: Oid) -> Result<()> {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: Oid::INVALID.to_u32(),
        locktag_field2: pg_sys::AuthIdRelationId.to_u32(),
        locktag_field3: role.to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: inside a transaction, which lets go of it; the tag is that of LockSharedObject.
    let taken = unsafe { pg_sys::LockAcquire(&tag, MODE, false, true) };
    if taken == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
        say_which(role)?;
    }
    // SAFETY: as above; a wait ends with the lock or an ERROR, which the guard of the bindings turns into an unwinding.
    unsafe { pg_sys::LockSharedObject(pg_sys::AuthIdRelationId, role, 0, MODE) }
    Ok(())
}

// As in object_lock.rs, for a lock that is of no database.
static PREPARED_HOLDER: Plan = Plan::new(
    "SELECT x.gid FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_locks own \
         ON own.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction AND own.pid IS NULL AND own.locktype OPERATOR(pg_catalog.=) 'transactionid'::pg_catalog.text \
       JOIN pg_catalog.pg_prepared_xacts x ON x.transaction OPERATOR(pg_catalog.=) own.transactionid \
      WHERE l.pid IS NULL AND l.granted AND l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text \
        AND l.database OPERATOR(pg_catalog.=) 0::pg_catalog.oid AND l.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass::pg_catalog.oid \
        AND l.objid OPERATOR(pg_catalog.=) $1 AND l.mode OPERATOR(pg_catalog.=) 'ShareUpdateExclusiveLock'::pg_catalog.text LIMIT 1",
    &[BuiltinOid::OIDOID],
);

#[cold]
fn say_which(role: Oid) -> Result<()> {
    let holder = identity::as_owner(|| {
        spi::connect(|spi| {
            let found = spi.run(&PREPARED_HOLDER, params![role]);
            found.first().map(|row| row.text(1)).transpose()
        })
    })?;
    if let Some(gid) = holder {
        let role = identifier::quoted(&identity::role_name(role));
        prepared_wait::say(
            &format!("role {role}"),
            "has declared something that is counted for the role",
            &gid,
        );
    }
    Ok(())
}
