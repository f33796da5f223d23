//! A lock for which transactions wait one after the other, because they share something; each holds it until its end.

use pgrx::pg_sys::{self, Oid};

use super::is_in_recovery;
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid};

/// Waits, after `before_a_wait`, until no other transaction holds lock `number` on our table `table`, and holds it until this one ends. Numbers are
/// not reserved: two users of the same number wait for each other. Writes nothing; on a standby it does nothing.
pub fn take(table: &str, number: u32, before_a_wait: impl FnOnce() -> Result<()>) -> Result<()> {
    lock(table, Number(number, 0), LockMode::Alone, before_a_wait)
}

/// The number of a lock, of as many bits as the server's locks on objects have.
#[derive(Clone, Copy)]
pub struct Number(pub u32, pub u16);

/// Beside whom a lock is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    Alone,
    /// Others may hold it so too.
    Shared,
}

impl LockMode {
    fn raw(self) -> pg_sys::LOCKMODE {
        let mode = match self {
            LockMode::Alone => pg_sys::ExclusiveLock,
            LockMode::Shared => pg_sys::ShareLock,
        };
        mode as pg_sys::LOCKMODE
    }
}

/// The same, alone or beside others.
pub fn lock(
    table: &str,
    Number(number, part): Number,
    mode: LockMode,
    before_a_wait: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(table) = identity::internal_relation(table) else {
        return Ok(());
    };
    let mode = mode.raw();
    let number = Oid::from(number);
    if !is_in_recovery() && !taken_at_once(table, number, part, mode) {
        before_a_wait()?;
        // SAFETY: inside a transaction, whose end releases it.
        unsafe { pg_sys::LockDatabaseObject(table, number, part, mode) }
    }
    Ok(())
}

/// Waits until no other transaction drops this extension, and keeps others from it until this one ends; if it is gone by then, this session
/// knows. On a standby as well.
pub fn share_extension(extension: Oid) {
    let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: inside a transaction, whose end releases it; an object lock names nothing that must exist.
    unsafe { pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, mode) }
}

/// Lets go of a lock that this call of its transaction has taken, before it was used for anything.
pub fn unlock(table: &str, Number(number, part): Number, mode: LockMode) {
    let Some(table) = identity::internal_relation(table) else {
        return;
    };
    if !is_in_recovery() {
        // SAFETY: inside a transaction; held by this process.
        unsafe { pg_sys::UnlockDatabaseObject(table, Oid::from(number), part, mode.raw()) }
    }
}

/// ConditionalLockDatabaseObject(), which not every release has: a library that names it is neither built for 16.2 nor loaded by it.
fn taken_at_once(class: Oid, object: Oid, part: u16, mode: pg_sys::LOCKMODE) -> bool {
    // SAFETY: inside a transaction, whose end releases it; an object lock names nothing that must exist.
    unsafe {
        let tag = pg_sys::LOCKTAG {
            locktag_field1: pg_sys::MyDatabaseId.into(),
            locktag_field2: class.into(),
            locktag_field3: object.into(),
            locktag_field4: part,
            locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
            locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
        };
        let taken = pg_sys::LockAcquire(&tag, mode, false, true);
        if taken == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL {
            return false;
        }
        // What whoever held it before has changed is seen from here on.
        pg_sys::AcceptInvalidationMessages();
        true
    }
}

/// SQL: FROM and WHERE of the locks `l` in this database that prepared transactions `x` hold. A prepared transaction is in no
/// process, and only the lock of its own number says which it is.
macro_rules! prepared_locks {
    () => {
        " FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_locks own \
              ON own.virtualtransaction OPERATOR(pg_catalog.=) l.virtualtransaction AND own.pid IS NULL AND own.locktype OPERATOR(pg_catalog.=) 'transactionid'::pg_catalog.text \
            JOIN pg_catalog.pg_prepared_xacts x ON x.transaction OPERATOR(pg_catalog.=) own.transactionid \
           WHERE l.pid IS NULL \
             AND l.database OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database d \
                                                     WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())"
    };
}
pub(crate) use prepared_locks;

/// Does something while no other process does the same with this object of ours, and lets the lock go at once.
pub fn briefly<T>(object: Oid, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let mode = pg_sys::ExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: inside a transaction, whose abort releases what an ERROR leaves; an object lock names nothing that must exist.
    unsafe { pg_sys::LockDatabaseObject(object, Oid::INVALID, 0, mode) }
    let outcome = work();
    // SAFETY: as above; held by this process.
    unsafe { pg_sys::UnlockDatabaseObject(object, Oid::INVALID, 0, mode) }
    outcome
}

static PREPARED_HOLDER: Plan = Plan::new(
    concat!(
        "SELECT x.gid",
        prepared_locks!(),
        " AND l.locktype OPERATOR(pg_catalog.=) 'object'::pg_catalog.text AND l.granted \
          AND l.classid OPERATOR(pg_catalog.=) $1 AND l.objid OPERATOR(pg_catalog.=) $2 AND l.objsubid OPERATOR(pg_catalog.=) $3"
    ),
    &[BuiltinOid::OIDOID, BuiltinOid::OIDOID, BuiltinOid::INT2OID],
);

/// The prepared transaction that holds the lock, by its name. As the extension's owner.
pub fn prepared_holder(table: &str, Number(number, part): Number) -> Result<Option<String>> {
    let Some(table) = identity::internal_relation(table) else {
        return Ok(None);
    };
    spi::connect(|spi| {
        let found = spi.run(
            &PREPARED_HOLDER,
            params![table, Oid::from(number), part as i16],
        );
        found.first().map_or(Ok(None), |row| row.opt_text(1))
    })
}
