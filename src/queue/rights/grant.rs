//! queue_grant, queue_revoke and the questions whether one has a privilege.

use crate::pg::{transaction, BuiltinOid, Oid};

use crate::errors::{Error, Result};
use crate::pg::identity;
use crate::pg::spi::{self, Plan};
use crate::queue::alter::find_owned;
use crate::queue::cache;
use crate::queue::privilege::{self, Privilege};
use crate::shared::pending;
use crate::{params, sql_function};

/// What is granted and revoked where no privilege is said; as sql/queues.sql has it.
const USUAL: &str = "enqueue";

sql_function!(pushy_queue_grant_v1, |call| {
    transaction::require_writable(c"pushy.queue_grant()");
    let queue = call.text("queue", 0)?;
    let role = call.text("role", 1)?;
    let privilege = call.opt_text(2)?;
    let privilege = privilege.as_deref().unwrap_or(USUAL);
    grant(&queue, &role, privilege)
});

sql_function!(pushy_queue_revoke_v1, |call| {
    transaction::require_writable(c"pushy.queue_revoke()");
    let queue = call.text("queue", 0)?;
    let role = call.text("role", 1)?;
    let privilege = call.opt_text(2)?;
    let privilege = privilege.as_deref().unwrap_or(USUAL);
    revoke(&queue, &role, privilege)
});

sql_function!(pushy_has_queue_privilege_v1, |call| {
    let queue = call.text("queue", 0)?;
    let privilege = call.text("privilege", 1)?;
    has(identity::current_user(), &queue, &privilege)
});

sql_function!(pushy_has_queue_privilege_of_v1, |call| {
    let queue = call.text("queue", 0)?;
    let role = call.text("role", 1)?;
    let privilege = call.text("privilege", 2)?;
    let role = identity::grantee(&role).ok_or_else(|| Error::no_such_role(&role))?;
    has(role, &queue, &privilege)
});

static GRANT: Plan = Plan::new(
    "INSERT INTO pushy_internal.queue_acl (queue_id, grantee, grantee_name, privilege) \
     VALUES ($1, $2, $3::pg_catalog.name, $4) \
     ON CONFLICT (queue_id, grantee, privilege) DO UPDATE SET grantee_name = excluded.grantee_name",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
    ],
);

/// Also by name, for a role that is gone.
static REVOKE: Plan = Plan::new(
    "DELETE FROM pushy_internal.queue_acl a \
      WHERE a.queue_id OPERATOR(pg_catalog.=) $1 \
        AND (a.grantee OPERATOR(pg_catalog.=) $2 \
             OR a.grantee_name OPERATOR(pg_catalog.=) $3::pg_catalog.name) \
        AND a.privilege OPERATOR(pg_catalog.=) $4",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
    ],
);

fn grant(queue: &str, role: &str, privilege: &str) -> Result<()> {
    let privilege = Privilege::parse(privilege)?;
    let queue = find_owned(queue)?;
    let grantee = identity::grantee(role).ok_or_else(|| Error::no_such_role(role))?;
    identity::as_owner(|| {
        spi::run(
            &GRANT,
            params![queue.queue_id, grantee, role, privilege.as_str()],
        );
        Ok(())
    })?;
    pending::privileges_changed(Some(queue.key()));
    Ok(())
}

fn revoke(queue: &str, role: &str, privilege: &str) -> Result<()> {
    let privilege = Privilege::parse(privilege)?;
    let queue = find_owned(queue)?;
    let grantee = identity::grantee(role);
    // A number that no grant has, when the role is gone and only its name is left.
    let number = grantee.unwrap_or(Oid::from(u32::MAX));
    let revoked = identity::as_owner(|| {
        Ok(spi::run(
            &REVOKE,
            params![queue.queue_id, number, role, privilege.as_str()],
        ))
    })?;
    if revoked == 0 && grantee.is_none() {
        return Err(Error::no_such_role(role));
    }
    pending::privileges_changed(Some(queue.key()));
    Ok(())
}

fn has(role: Oid, queue: &str, privilege: &str) -> Result<bool> {
    let privilege = Privilege::parse(privilege)?;
    let cached = cache::get(queue)?;
    identity::accept_changes();
    Ok(privilege::has(
        &cached.definition,
        &cached.grants,
        role,
        privilege,
    ))
}
