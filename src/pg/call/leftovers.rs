//! What a job that ran in a user's session has left there. The session's own is let alone, so it is compared with what
//! there was before.

use std::collections::HashSet;
use std::ffi::CString;

use pgrx::pg_sys::{self, Oid};

use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;
use crate::pg::{identity, subtransaction};

static STATEMENTS: Plan = Plan::new(
    "SELECT p.name FROM pg_catalog.pg_prepared_statement() p",
    &[],
);

static CURSORS: Plan = Plan::new("SELECT c.name FROM pg_catalog.pg_cursor() c", &[]);

// Without what is part of another object, and goes with it: dropped by itself, the sequence of an identity would take
// its column with it, which may be of the session's own table.
static TEMPORARY: Plan = Plan::new(
    "SELECT d.classid, d.objid FROM pg_catalog.pg_depend d \
      WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass::pg_catalog.oid \
        AND d.refobjid OPERATOR(pg_catalog.=) $1 \
        AND d.deptype OPERATOR(pg_catalog.=) 'n'::pg_catalog.\"char\" \
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend i \
                         WHERE i.classid OPERATOR(pg_catalog.=) d.classid AND i.objid OPERATOR(pg_catalog.=) d.objid \
                           AND i.deptype OPERATOR(pg_catalog.=) 'i'::pg_catalog.\"char\")",
    &[BuiltinOid::OIDOID],
);

/// Prepared statements, cursors and temporary objects of the session.
pub struct Leftovers {
    statements: HashSet<Vec<u8>>,
    cursors: HashSet<Vec<u8>>,
    /// By catalog and number.
    temporary: HashSet<(Oid, Oid)>,
}

impl Leftovers {
    /// What there is now.
    pub fn now() -> Result<Self> {
        identity::as_owner(|| {
            Ok(Self {
                statements: names(&STATEMENTS),
                cursors: names(&CURSORS),
                temporary: temporary(),
            })
        })
    }

    /// Removes what has come since: what cannot be removed, such as a table of which a deferred trigger is to fire,
    /// stays until the transaction ends.
    pub fn remove_newer(&self) -> Result<()> {
        let now = Self::now()?;
        for name in now.cursors.difference(&self.cursors) {
            close_cursor(name);
        }
        for name in now.statements.difference(&self.statements) {
            deallocate(name);
        }
        let newer: Vec<_> = now.temporary.difference(&self.temporary).copied().collect();
        if !newer.is_empty() {
            let _ = subtransaction::run(|| {
                drop_all(&newer);
                Ok(())
            });
        }
        Ok(())
    }
}

fn names(plan: &Plan) -> HashSet<Vec<u8>> {
    spi::connect(|spi| {
        let found = spi.run(plan, &[]);
        found.rows().filter_map(|row| row.opt_bytes(1)).collect()
    })
}

fn temporary() -> HashSet<(Oid, Oid)> {
    let (mut namespace, mut toast) = (Oid::INVALID, Oid::INVALID);
    // SAFETY: writes both.
    unsafe { pg_sys::GetTempNamespaceState(&mut namespace, &mut toast) };
    // The session may have them since an earlier transaction: whether this one has touched any says nothing.
    if namespace == Oid::INVALID {
        return HashSet::new();
    }
    spi::connect(|spi| {
        let found = spi.run(&TEMPORARY, params![namespace]);
        found.rows().map(|row| (row.oid(1), row.oid(2))).collect()
    })
}

fn close_cursor(name: &[u8]) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: a portal of this session, if it is there; one that runs, or that a loop holds, is let alone.
    unsafe {
        let portal = pg_sys::GetPortalByName(name.as_ptr());
        if !portal.is_null()
            && !(*portal).portalPinned
            && (*portal).status != pg_sys::PortalStatus::PORTAL_ACTIVE
        {
            pg_sys::PortalDrop(portal, false);
        }
    }
}

fn deallocate(name: &[u8]) {
    let Ok(name) = CString::new(name) else { return };
    // SAFETY: told not to complain of one that is gone.
    unsafe { pg_sys::DropPreparedStatement(name.as_ptr(), false) }
}

fn drop_all(objects: &[(Oid, Oid)]) {
    // SAFETY: objects that exist, with what depends on them; as ResetTempTableNamespace does it.
    unsafe {
        let addresses = pg_sys::new_object_addresses();
        for (class, object) in objects {
            let address = pg_sys::ObjectAddress {
                classId: *class,
                objectId: *object,
                objectSubId: 0,
            };
            pg_sys::add_exact_object_address(&address, addresses);
        }
        pg_sys::performMultipleDeletions(
            addresses,
            pg_sys::DropBehavior::DROP_CASCADE,
            (pg_sys::PERFORM_DELETION_INTERNAL
                | pg_sys::PERFORM_DELETION_QUIETLY
                | pg_sys::PERFORM_DELETION_SKIP_EXTENSIONS) as i32,
        );
        pg_sys::free_object_addresses(addresses);
        pg_sys::CommandCounterIncrement();
    }
}
