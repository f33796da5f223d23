//! A queue as registered: one row of pushy_internal.queue.

use crate::pg::{BuiltinOid, Oid};
use pushy_core::backoff::Backoff;
use pushy_core::gate::Standing;

use super::privilege;
use crate::errors::{Error, Result};
use crate::params;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{database, identity};
use crate::shared::queue_slot::{QueueFacts, QueueKey};

/// Lengths of time are microseconds; 0 is 'none'.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDefinition {
    pub queue_id: i32,
    pub name: String,
    pub owner: Oid,
    pub owner_name: String,
    pub run_as: Oid,
    pub run_as_name: String,
    pub handler_oid: Oid,
    /// `schema.name(types)` as it was when registered.
    pub handler: String,
    /// Whose code it was when somebody named it, or resumed the queue with it.
    pub handler_owner: Oid,
    pub handler_owner_name: String,
    /// None: as many as there are executors.
    pub concurrency: Option<i32>,
    pub priority: i32,
    pub max_attempts: i32,
    pub backoff: Backoff,
    pub retry_delay_us: i64,
    pub max_retry_delay_us: i64,
    pub timeout_us: i64,
    pub keep_completed_us: i64,
    pub keep_discarded_us: i64,
    pub batch: bool,
    pub paused: bool,
    /// Why an executor gave up on it.
    pub parked: Option<String>,
    pub home_system: i64,
    pub home_database: u32,
}

/// The columns of a definition, in the order that `read` wants.
macro_rules! columns {
    () => {
        "q.queue_id, q.queue, q.owner, q.owner_name::pg_catalog.text, \
         q.run_as, q.run_as_name::pg_catalog.text, q.handler_oid, q.handler, \
         q.concurrency, q.priority, q.max_attempts, q.backoff, \
         q.retry_delay_us, q.max_retry_delay_us, q.timeout_us, \
         q.keep_completed_us, q.keep_discarded_us, q.batch, q.paused, q.parked, \
         q.home_system, q.home_database, q.handler_owner, q.handler_owner_name::pg_catalog.text"
    };
}

static BY_NAME: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.queue q WHERE q.queue OPERATOR(pg_catalog.=) $1"
    ),
    &[BuiltinOid::TEXTOID],
);

static BY_NAME_LOCKED: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.queue q WHERE q.queue OPERATOR(pg_catalog.=) $1 FOR UPDATE"
    ),
    &[BuiltinOid::TEXTOID],
);

static BY_ID_IF_FREE: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED"
    ),
    &[BuiltinOid::INT4OID],
);

static BY_ID: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1"
    ),
    &[BuiltinOid::INT4OID],
);

static ALL: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.queue q ORDER BY q.queue_id"
    ),
    &[],
);

fn read(row: Row<'_>) -> Result<QueueDefinition> {
    let backoff = row.text(12)?;
    Ok(QueueDefinition {
        queue_id: row.i32(1),
        name: row.text(2)?,
        owner: row.oid(3),
        owner_name: row.text(4)?,
        run_as: row.oid(5),
        run_as_name: row.text(6)?,
        handler_oid: row.oid(7),
        handler: row.text(8)?,
        concurrency: row.opt_i32(9),
        priority: row.i32(10),
        max_attempts: row.i32(11),
        backoff: Backoff::parse(&backoff).expect("constrained by the table"),
        retry_delay_us: row.i64(13),
        max_retry_delay_us: row.i64(14),
        timeout_us: row.i64(15),
        keep_completed_us: row.i64(16),
        keep_discarded_us: row.i64(17),
        batch: row.bool(18),
        paused: row.bool(19),
        parked: row.opt_text(20)?,
        home_system: row.i64(21),
        home_database: row.oid(22).to_u32(),
        handler_owner: row.oid(23),
        handler_owner_name: row.text(24)?,
    })
}

fn load(plan: &Plan, params: &[spi::Param]) -> Result<Vec<QueueDefinition>> {
    spi::connect(|spi| spi.run(plan, params).rows().map(read).collect())
}

/// The queue of this name; as the extension's owner.
pub fn find(name: &str) -> Result<Option<QueueDefinition>> {
    Ok(load(&BY_NAME, params![name])?.pop())
}

/// The same with its row locked until the transaction ends, because changes of one queue come one after another: where the
/// caller `may` do that. Whoever may not comes to hold no lock and to wait for none, either of which would stop the owner.
pub fn find_for_update(
    name: &str,
    may: impl Fn(&QueueDefinition) -> Result<bool>,
) -> Result<Option<QueueDefinition>> {
    let entitled = |found: Option<QueueDefinition>| match found {
        Some(queue) if may(&queue)? => Ok(Some(queue)),
        _ => Ok(None),
    };
    if entitled(find(name)?)?.is_none() {
        return Ok(None);
    }
    // Another queue may have the name by now.
    entitled(load(&BY_NAME_LOCKED, params![name])?.pop())
}

/// The same for a caller with the rights of its owner; others get an error.
pub fn lock_owned(name: &str, caller: Oid) -> Result<Option<QueueDefinition>> {
    find_for_update(name, |queue| {
        privilege::require_owner(queue, caller)?;
        Ok(true)
    })
}

pub fn find_by_id(queue_id: i32) -> Result<Option<QueueDefinition>> {
    Ok(load(&BY_ID, params![queue_id])?.pop())
}

/// What `find_if_free` met.
pub enum LockedQueue {
    /// Its row is locked by this transaction.
    Locked(Box<QueueDefinition>),
    /// Somebody else holds its row.
    Held,
    Gone,
}

/// The queue with its row locked, for a worker: it waits for nobody.
pub fn find_if_free(queue_id: i32) -> Result<LockedQueue> {
    Ok(match load(&BY_ID_IF_FREE, params![queue_id])?.pop() {
        Some(queue) => LockedQueue::Locked(Box::new(queue)),
        None if find_by_id(queue_id)?.is_some() => LockedQueue::Held,
        None => LockedQueue::Gone,
    })
}

/// The queue of this name, or the error that it does not exist.
pub fn get(name: &str) -> Result<QueueDefinition> {
    find(name)?.ok_or_else(|| Error::no_such_queue(name))
}

/// All queues of the database.
pub fn all() -> Result<Vec<QueueDefinition>> {
    load(&ALL, &[])
}

impl QueueDefinition {
    pub fn key(&self) -> QueueKey {
        QueueKey {
            database: database::current(),
            queue_id: self.queue_id,
        }
    }

    /// Whether it was registered here, in this cluster and database.
    pub fn is_home(&self) -> bool {
        self.home_system == database::system_identifier()
            && self.home_database == database::current()
    }

    /// What it says against running.
    pub fn standing(&self) -> Standing {
        Standing::OPEN
            .with(Standing::PAUSED, self.paused)
            .with(Standing::PARKED, self.parked.is_some())
            .with(Standing::ELSEWHERE, !self.is_home())
    }

    /// What shared memory keeps of it.
    pub fn facts(&self) -> QueueFacts {
        QueueFacts {
            key: self.key(),
            epoch: identity::extension_oid().map_or(0, |oid| oid.to_u32()),
            role: self.run_as.to_u32(),
            owner: if self.is_home() {
                self.owner.to_u32()
            } else {
                0
            },
            concurrency: self.concurrency.unwrap_or(0) as u32,
            standing: self.standing(),
        }
    }
}
