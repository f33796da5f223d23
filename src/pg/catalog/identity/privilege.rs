//! What a role may do.

use super::{role_exists, Role};
use crate::pg::major::{self, Object};
use pgrx::pg_sys::{self, Oid};

/// Whether `member` has the rights of `role` without SET ROLE: itself, superuser, or an inheriting
/// member. A role that is gone has none, not even its own.
pub fn has_rights_of(member: Oid, role: Oid) -> bool {
    // SAFETY: a cached catalog look-up.
    role_exists(member) && unsafe { pg_sys::has_privs_of_role(member, role) }
}

/// Whether a role has the rights of pg_read_all_stats, as pg_monitor does.
pub fn reads_all_statistics(role: Oid) -> bool {
    // The number in pg_authid.dat; its constant has another name in 13.
    has_rights_of(role, Oid::from(3375))
}

/// Whether `member` may become `role` by SET ROLE: the SET option from 16, membership before.
pub fn may_become(member: Oid, role: Oid) -> bool {
    major::may_set_role(member, role) && role_exists(member)
}

/// Whether `role` may connect to a database.
pub fn may_connect(database: u32, role: Oid) -> bool {
    major::has_privilege(
        Object::Database,
        Oid::from(database),
        role,
        pg_sys::ACL_CONNECT,
    )
}

/// Whether the server refuses one more session of `role` because of its CONNECTION LIMIT; workers do not
/// count, superusers have none (miscinit.c).
pub fn has_too_many_sessions(role: &Role) -> bool {
    // SAFETY: counts in shared memory.
    role.connection_limit >= 0
        && !role.superuser
        && unsafe { pg_sys::CountUserBackends(role.oid) } > role.connection_limit
}

/// Whether `role` may execute a function.
pub fn may_execute(function: Oid, role: Oid) -> bool {
    major::has_privilege(Object::Function, function, role, pg_sys::ACL_EXECUTE)
}

/// Whether `role` has USAGE on a schema.
pub fn may_use_schema(schema: Oid, role: Oid) -> bool {
    major::has_privilege(Object::Schema, schema, role, pg_sys::ACL_USAGE)
}

/// Takes notice of what others have committed to the catalogs, roles and grants included.
pub fn accept_changes() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() }
}
