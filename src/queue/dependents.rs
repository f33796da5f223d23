//! What hangs on queues in the rooms above, which know queues while queues do not know them. `crate::ON_QUEUES` names these rooms.

use crate::errors::Result;
use crate::pg::home::Home;
use crate::queue::definition::QueueDefinition;

/// Something that enqueues into a queue.
pub struct Dependent {
    /// As a message calls it.
    pub what: String,
    /// The statement that ends it.
    pub end: String,
}

/// A thing that has a home, by its name, and why it does not go on there.
pub type Adopted = (String, Option<String>);

/// What hangs on nothing, as `resume_after_restore` names it, and what becomes of it.
pub type Rest = (&'static str, String);

/// One kind of things.
pub struct Dependents {
    /// As `resume_after_restore` shows it, and its plural.
    pub kind: [&'static str; 2],
    /// Those that enqueue into a queue, or would after a restore, so not what nothing can make enqueue any more; with the rights of the extension's owner.
    pub of_queue: fn(&QueueDefinition) -> Result<Vec<Dependent>>,
    /// Has those hold this queue's number that mean it; with the rights of the extension's owner.
    pub take_up: fn(&QueueDefinition) -> Result<()>,
    /// Removes those whose object was dropped; with true also those that a restore has brought without their object, which are
    /// answered by name. With the rights of the extension's owner.
    pub forget_lost: fn(bool) -> Result<Vec<String>>,
    /// Makes this database the home of those that came here by a restore: of all (true), or of the caller's.
    pub adopt_all: fn(bool) -> Result<Vec<Adopted>>,
    /// The same for those whose home was here until pg_upgrade.
    pub adopt_from: fn(&Home) -> Result<Vec<Adopted>>,
    /// What was loaded and hangs on nothing, and what becomes of it, in words; removes it (true).
    pub rest: fn(bool) -> Result<Option<Rest>>,
}

/// What a queue asks of its jobs.
pub struct Jobs {
    /// Whether this session runs a job of the queue of this number.
    pub is_running_of: fn(i32) -> bool,
    /// Deletes all of a queue that goes with its jobs.
    pub delete_with_queue: fn(&QueueDefinition),
    /// In a new cluster, finds the roles that enqueued them.
    pub find_enqueuers: fn(&QueueDefinition),
    /// Announces those that no commit here has announced.
    pub announce_all: fn(&QueueDefinition),
    /// Jobs of a loaded queue, by its number, are at home from here on.
    pub adopted: fn(i32),
    /// How many unfinished jobs were loaded without their queue.
    pub count_rest: fn() -> i64,
    /// Removes all that was loaded so.
    pub drop_rest: fn(),
}
