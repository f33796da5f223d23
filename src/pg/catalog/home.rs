//! Where something was declared: its numbers of tables and functions mean something only there, and those of roles only in
//! that cluster.

use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, identity, BuiltinOid, Oid};

/// A cluster, a database of it, and the life of the extension there: a restore into the same database begins
/// another, with tables and functions of other numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    pub system: i64,
    pub database: Oid,
    pub extension: Oid,
}

static IS_FORMER: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.home h WHERE $1 OPERATOR(pg_catalog.=) ANY (h.former))",
    &[BuiltinOid::INT8OID],
);

/// Whether the numbers of roles of the cluster `system` are those of this one, which it is, or which pg_upgrade has made of it.
pub fn has_our_roles(system: i64) -> bool {
    #[cold]
    fn is_former(system: i64) -> bool {
        let read = || {
            Ok(spi::connect(|spi| {
                spi.run(&IS_FORMER, params![system]).row(0).bool(1)
            }))
        };
        identity::as_owner(read).unwrap_or(false)
    }
    system == database::system_identifier() || is_former(system)
}

/// The role that is meant by what was written in the cluster `system`, as a number and a name. In that cluster, and in what
/// pg_upgrade makes of it, the number decides, in whatever database: a role that was renamed is the same, and one that was made
/// again under the name of a dropped one is another. Elsewhere (a restore in another cluster) the number may be a stranger's, and
/// the name decides.
pub fn role(system: i64, number: Oid, name: &str) -> Option<Oid> {
    if has_our_roles(system) {
        identity::role_exists(number).then_some(number)
    } else {
        identity::find_role(name)
    }
}

/// Whether `member` has the rights of the role that was so written; a role that is gone has none.
pub fn has_rights_of(member: Oid, system: i64, number: Oid, name: &str) -> bool {
    role(system, number, name).is_some_and(|role| identity::has_rights_of(member, role))
}

impl Home {
    /// This database, now.
    pub fn here() -> Self {
        Self {
            system: database::system_identifier(),
            database: Oid::from(database::current()),
            extension: identity::extension_oid().unwrap_or(Oid::INVALID),
        }
    }

    pub fn is_here(&self) -> bool {
        *self == Self::here()
    }
}
