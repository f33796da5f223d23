//! Who may do what with a queue.

use std::collections::HashMap;

use crate::pg::Oid;

use crate::errors::{Error, Result};
use crate::pg::heap::{self, Key};
use crate::pg::{home, identity};
use crate::queue::definition::QueueDefinition;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Privilege {
    /// Add jobs.
    Enqueue,
    /// Cancel and retry.
    Work,
    /// See arguments, results and errors.
    Monitor,
    /// Do jobs from outside.
    Claim,
}

impl Privilege {
    pub const ALL: [Self; 4] = [Self::Enqueue, Self::Work, Self::Monitor, Self::Claim];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Work => "work",
            Self::Monitor => "monitor",
            Self::Claim => "claim",
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
                    "'enqueue', 'work', 'monitor', 'claim'",
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

mod table {
    use std::sync::atomic::AtomicU64;

    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        QUEUE_ID "queue_id",
        GRANTEE "grantee",
        GRANTEE_NAME "grantee_name",
        PRIVILEGE "privilege",
    }
}

fn look(keys: &[Key], mut each: impl FnMut(i32, Grant)) -> Result<()> {
    let shape = (table::COLUMNS, &table::CHECKED);
    heap::read_now("queue_acl", shape, "queue_acl_pkey", keys, |row| {
        let grant = Grant {
            grantee: row.oid(table::GRANTEE),
            privilege: Privilege::parse(&row.text(table::PRIVILEGE)?)?,
        };
        each(row.i32(table::QUEUE_ID), grant);
        Ok(true)
    })
}

/// What is granted on a queue; as the extension's owner.
pub fn grants(queue_id: i32) -> Result<Vec<Grant>> {
    let mut found = Vec::new();
    look(&[Key::int4_equals(1, queue_id)], |_, grant| {
        found.push(grant)
    })?;
    Ok(found)
}

/// What is granted on all queues, by their numbers.
pub fn all_grants() -> Result<HashMap<i32, Vec<Grant>>> {
    let mut found: HashMap<i32, Vec<Grant>> = HashMap::new();
    look(&[], |queue_id, grant| {
        found.entry(queue_id).or_default().push(grant)
    })?;
    Ok(found)
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
