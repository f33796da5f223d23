//! A queue as a watch or a subscription holds it: by its number. A name may be another queue's by tomorrow, so what is called so counts
//! only where it has come in the place of the one held ([`QueueReference::renewed`]): that is written down when a queue comes to a name
//! ([`take_up`]), and found when jobs are added where it could not be, because the row was locked or not committed.

use std::rc::Rc;

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::obstacle::{blocked, Finding};
use crate::pg::{home, identity, Oid};
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::privilege::{self, Privilege};
use crate::ON_QUEUES;

/// Has those that mean this queue hold its number from here on: it has come to its name, to its owner or here at this moment. Waits
/// for the relay at most, because others who lock their rows are strangers to the queue's owner. As the extension's owner.
pub fn take_up(queue: &QueueDefinition) -> Result<()> {
    for kind in &ON_QUEUES {
        (kind.take_up)(queue)?;
    }
    Ok(())
}

#[derive(Clone, Debug, PartialEq)]
pub struct QueueReference {
    pub name: String,
    pub queue_id: i32,
    /// Who owned it when it came to be held.
    pub owner: Oid,
}

impl QueueReference {
    /// The queue of this name as it is now, for a role that may enqueue.
    pub fn choose(name: &str, role: Oid) -> Result<Self> {
        let cached = cache::get(name)?;
        privilege::require(&cached.definition, &cached.grants, role, Privilege::Enqueue)?;
        Ok(Self {
            name: name.to_owned(),
            queue_id: cached.definition.queue_id,
            owner: cached.definition.owner,
        })
    }

    /// What is to be held instead by what has come from the cluster `system`, if this queue is meant and not held as it is: it has the
    /// number; or it has come in the place of the one held, which is gone, under its name, of an owner who could have changed that one
    /// as well, because deploy scripts drop and register again. As the extension's owner.
    pub fn renewed(&self, system: i64, queue: &QueueDefinition) -> Result<Option<Self>> {
        // Else numbers of owners may be strangers'.
        let are_ours = home::has_our_roles(system) && home::has_our_roles(queue.home_system);
        let is_meant = self.queue_id == queue.queue_id
            || are_ours
                && self.may_be_followed_by(queue)
                && definition::find_by_id(self.queue_id)?.is_none();
        let renewed = Self {
            name: queue.name.clone(),
            queue_id: queue.queue_id,
            owner: if are_ours { queue.owner } else { self.owner },
        };
        Ok((is_meant && renewed != *self).then_some(renewed))
    }

    fn may_be_followed_by(&self, queue: &QueueDefinition) -> bool {
        self.name == queue.name && identity::has_rights_of(queue.owner, self.owner)
    }

    /// As it is held here, in what has come from the cluster `system`, where the number of its owner may be a stranger's. As the
    /// extension's owner.
    pub fn come_from(&self, system: i64) -> Result<Self> {
        let found = definition::find_by_id(self.queue_id)?.filter(QueueDefinition::is_home);
        let owner = match found {
            Some(queue) => queue.owner,
            None if home::has_our_roles(system) => self.owner,
            None => Oid::INVALID,
        };
        Ok(Self {
            owner,
            ..self.clone()
        })
    }

    /// The queue of this number, whatever it is called by now, or the one that has come in its place; of what is at home here.
    fn find(&self) -> Result<Rc<CachedQueue>> {
        let named = cache::get(&self.name);
        if let Ok(cached) = &named {
            if cached.definition.queue_id == self.queue_id {
                return named;
            }
        }
        match identity::as_owner(|| definition::find_by_id(self.queue_id))? {
            Some(renamed) => cache::get(&renamed.name),
            None => {
                let namesake = named?;
                let queue = &namesake.definition;
                if home::has_our_roles(queue.home_system) && self.may_be_followed_by(queue) {
                    return Ok(namesake);
                }
                Err(self.dropped(&namesake))
            }
        }
    }

    #[cold]
    fn dropped(&self, namesake: &CachedQueue) -> Error {
        let now = if identity::has_rights_of(namesake.definition.owner, self.owner) {
            "another has its name"
        } else {
            "is another role's"
        };
        Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("queue \"{}\" was dropped, and {now} now", self.name),
        )
        .hint("Declare it again, with this queue or another.")
    }

    /// The queue, for jobs that `role`, whose watch or subscription holds it, adds.
    pub fn open(&self, role: Oid) -> Result<Rc<CachedQueue>> {
        let cached = self.find()?;
        if !identity::role_exists(role) {
            return Err(Error::new(
                SqlState::INSUFFICIENT_PRIVILEGE,
                format!(
                    "who was to enqueue to queue \"{}\" is gone: the role was dropped",
                    self.name
                ),
            )
            .hint("Declare it again, as a role that may enqueue."));
        }
        privilege::require(&cached.definition, &cached.grants, role, Privilege::Enqueue)?;
        Ok(cached)
    }

    /// What keeps `role` from adding jobs, and what to do about it; `again` says how to declare anew what holds the queue.
    pub fn obstacle(&self, role: Oid, again: &str) -> Result<Option<Finding>> {
        let error = match self.open(role) {
            Ok(_) => return Ok(None),
            Err(error) => error,
        };
        let fix = match error.sqlstate {
            SqlState::UNDEFINED_OBJECT => format!(
                "Register queue {} again, or declare it with another queue by {again}: {}",
                quote_literal(&self.name),
                error.message
            ),
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE => {
                format!("Declare it again with {again}: {}", error.message)
            }
            SqlState::INSUFFICIENT_PRIVILEGE => match identity::role(role) {
                // Words, and no statement that undoes, pasted without a thought, what the queue's owner did on purpose.
                Some(role) => format!(
                    "Ask the owner of queue {queue}, who may have taken it away on purpose; else: SELECT pushy.queue_grant({queue}, {}, 'enqueue')",
                    quote_literal(&role.name),
                    queue = quote_literal(&self.name),
                ),
                None => format!("Declare it again with {again}: {}", error.message),
            },
            _ => return Err(error),
        };
        Ok(Some(blocked(error.message, fix)))
    }
}
