//! A queue as a watch or a subscription holds it: by its number and its owner. A name alone may be another
//! tenant's by tomorrow.

use std::rc::Rc;

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::obstacle::{blocked, Finding};
use crate::pg::{identity, Oid};
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::privilege::{self, Privilege};

#[derive(Clone, Debug, PartialEq)]
pub struct QueueReference {
    pub name: String,
    pub queue_id: i32,
    /// Who owned it when it was chosen.
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

    /// Whether the queue that was found is the one meant. One of the number is, whoever owns it: pushy.queue_alter gives a queue away with
    /// all that feeds it, a restore brings queues and what feeds them with their numbers, and whether the role may enqueue is asked
    /// in any case. Of a name, one that was dropped and registered again is, if
    /// who owns it could have changed the old one as well: deploy scripts do that.
    fn is(&self, queue: &QueueDefinition) -> bool {
        queue.queue_id == self.queue_id || identity::has_rights_of(queue.owner, self.owner)
    }

    /// Whether jobs go to this queue: it has the number, or no queue has that any more and this one is its namesake that is
    /// meant. As the extension's owner.
    pub fn feeds(&self, queue: &QueueDefinition) -> Result<bool> {
        if self.queue_id == queue.queue_id {
            return Ok(true);
        }
        Ok(self.name == queue.name
            && self.is(queue)
            && definition::find_by_id(self.queue_id)?.is_none())
    }

    /// The queue of this number, whatever it is called by now; where none has it the one that has the name.
    fn find(&self) -> Result<Rc<CachedQueue>> {
        let named = cache::get(&self.name);
        if let Ok(cached) = &named {
            if cached.definition.queue_id == self.queue_id {
                return named;
            }
        }
        match identity::as_owner(|| definition::find_by_id(self.queue_id))? {
            Some(renamed) => cache::get(&renamed.name),
            None => named,
        }
    }

    /// The queue, for jobs that `role`, whose watch or subscription holds it, adds.
    pub fn open(&self, role: Oid) -> Result<Rc<CachedQueue>> {
        let cached = self.find()?;
        if !self.is(&cached.definition) {
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "queue \"{}\" was dropped, and is another role's now",
                    self.name
                ),
            )
            .hint("Declare it again, with this queue or another."));
        }
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
