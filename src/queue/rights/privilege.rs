//! Who may do what with a queue.

use std::collections::HashMap;

use crate::pg::{BuiltinOid, Oid};

use crate::errors::{Error, Result};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{home, identity};
use crate::queue::definition::QueueDefinition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Add jobs.
    Enqueue,
    /// Cancel, retry, and do jobs from outside.
    Work,
    /// See arguments, results and errors.
    Monitor,
}

impl Privilege {
    pub const ALL: [Self; 3] = [Self::Enqueue, Self::Work, Self::Monitor];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Work => "work",
            Self::Monitor => "monitor",
        }
    }

    pub fn parse(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|privilege| privilege.as_str() == word)
            .ok_or_else(|| {
                Error::out_of_range(
                    "privilege",
                    format!("\"{word}\""),
                    "'enqueue', 'work', 'monitor'",
                )
            })
    }
}

/// One row of pushy_internal.queue_acl.
#[derive(Clone, Copy, Debug)]
pub struct Grant {
    /// OID of a role; 0 is PUBLIC.
    pub grantee: Oid,
    pub privilege: Privilege,
}

static OF_QUEUE: Plan = Plan::new(
    "SELECT a.grantee, a.privilege FROM pushy_internal.queue_acl a \
      WHERE a.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

/// What is granted on a queue; as the extension's owner.
pub fn grants(queue_id: i32) -> Result<Vec<Grant>> {
    spi::connect(|spi| {
        spi.run(&OF_QUEUE, params![queue_id])
            .rows()
            .map(|row| {
                Ok(Grant {
                    grantee: row.oid(1),
                    privilege: Privilege::parse(&row.text(2)?)?,
                })
            })
            .collect()
    })
}

static ALL: Plan = Plan::new(
    "SELECT a.queue_id, a.grantee, a.privilege FROM pushy_internal.queue_acl a",
    &[],
);

/// What is granted on all queues, by their numbers.
pub fn all_grants() -> Result<HashMap<i32, Vec<Grant>>> {
    spi::connect(|spi| {
        let mut found: HashMap<i32, Vec<Grant>> = HashMap::new();
        for row in spi.run(&ALL, params![]).rows() {
            found.entry(row.i32(1)).or_default().push(Grant {
                grantee: row.oid(2),
                privilege: Privilege::parse(&row.text(3)?)?,
            });
        }
        Ok(found)
    })
}

/// Whether `role` has the rights of the queue's owner. In another cluster the owner is who has the name; away from home
/// grants to roles count for nothing.
pub fn is_owner(queue: &QueueDefinition, role: Oid) -> bool {
    identity::is_superuser(role)
        || home::has_rights_of(role, queue.home_system, queue.owner, &queue.owner_name)
}

/// Whether `role` has the privilege: as owner, by a grant to it or a role whose rights it has, or to
/// PUBLIC. `role` 0 is PUBLIC.
pub fn has(queue: &QueueDefinition, grants: &[Grant], role: Oid, privilege: Privilege) -> bool {
    let is_role = role != Oid::INVALID;
    (is_role && is_owner(queue, role))
        || grants.iter().any(|grant| {
            grant.privilege == privilege
                && (grant.grantee == Oid::INVALID
                    || (is_role && queue.is_home() && identity::has_rights_of(role, grant.grantee)))
        })
}

/// The error of a role without the privilege. A REVOKE of a role's membership counts from its commit on: a transaction
/// that takes no new lock would not hear of it.
pub fn require(
    queue: &QueueDefinition,
    grants: &[Grant],
    role: Oid,
    privilege: Privilege,
) -> Result<()> {
    identity::accept_changes();
    if has(queue, grants, role, privilege) {
        Ok(())
    } else {
        Err(Error::queue_denied(
            &queue.name,
            privilege.as_str(),
            &identity::role_name(role),
        ))
    }
}

/// The same for a job that is named by its number: who has no privilege on its queue is answered as for a number
/// that no job has, because who counts up would learn the name of every queue.
pub fn require_for_job(
    job: i64,
    queue: &QueueDefinition,
    grants: &[Grant],
    role: Oid,
    privilege: Privilege,
) -> Result<()> {
    identity::accept_changes();
    let knows = |any: &Privilege| has(queue, grants, role, *any);
    if !Privilege::ALL.iter().any(knows) {
        return Err(Error::no_such_job(job));
    }
    require(queue, grants, role, privilege)
}

pub fn require_owner(queue: &QueueDefinition, role: Oid) -> Result<()> {
    identity::accept_changes();
    if is_owner(queue, role) {
        Ok(())
    } else {
        let owner = home::role(queue.home_system, queue.owner, &queue.owner_name);
        Err(Error::not_queue_owner(
            &queue.name,
            owner.map(identity::role_name).as_deref(),
        ))
    }
}
