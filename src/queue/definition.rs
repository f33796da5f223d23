//! A queue as registered: one row of pushy_internal.queue.

use std::sync::atomic::AtomicU64;

use crate::pg::Oid;
use pushy_core::backoff::Backoff;
use pushy_core::standing::Standing;

use super::privilege;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::heap::{self, Holder, Key};
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{database, identity, BuiltinOid};
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
    /// How long a worker outside has a job where its claim says nothing else.
    pub lease_us: i64,
    pub paused: bool,
    /// Why an executor gave up on it.
    pub parked: Option<String>,
    pub home_system: i64,
    pub home_database: u32,
}

/// The table, whose columns a definition is read from as they stand there.
mod table {
    use std::sync::atomic::AtomicU64;

    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        QUEUE_ID "queue_id",
        QUEUE "queue",
        OWNER "owner",
        OWNER_NAME "owner_name",
        RUN_AS "run_as",
        RUN_AS_NAME "run_as_name",
        HANDLER_OID "handler_oid",
        HANDLER "handler",
        HANDLER_OWNER "handler_owner",
        HANDLER_OWNER_NAME "handler_owner_name",
        CONCURRENCY "concurrency",
        PRIORITY "priority",
        MAX_ATTEMPTS "max_attempts",
        BACKOFF "backoff",
        RETRY_DELAY_US "retry_delay_us",
        MAX_RETRY_DELAY_US "max_retry_delay_us",
        TIMEOUT_US "timeout_us",
        KEEP_COMPLETED_US "keep_completed_us",
        KEEP_DISCARDED_US "keep_discarded_us",
        BATCH "batch",
        PAUSED "paused",
        PARKED "parked",
        HOME_SYSTEM "home_system",
        HOME_DATABASE "home_database",
        CREATED_AT "created_at",
        CHANGED_AT "changed_at",
        LEASE_US "lease_us",
    }
}

/// Unique indexes.
const BY_NAME: &str = "queue_queue_key";
const BY_ID: &str = "queue_pkey";

const SHAPE: (&[&str], &AtomicU64) = (table::COLUMNS, &table::CHECKED);

fn read(row: &Row<'_>) -> Result<QueueDefinition> {
    use table::{
        BACKOFF, BATCH, CONCURRENCY, HANDLER, HANDLER_OID, HANDLER_OWNER, HANDLER_OWNER_NAME,
        HOME_DATABASE, HOME_SYSTEM, KEEP_COMPLETED_US, KEEP_DISCARDED_US, LEASE_US, MAX_ATTEMPTS,
        MAX_RETRY_DELAY_US, OWNER, OWNER_NAME, PARKED, PAUSED, PRIORITY, QUEUE, QUEUE_ID,
        RETRY_DELAY_US, RUN_AS, RUN_AS_NAME, TIMEOUT_US,
    };
    let backoff = row.text(BACKOFF)?;
    Ok(QueueDefinition {
        queue_id: row.i32(QUEUE_ID),
        name: row.text(QUEUE)?,
        owner: row.oid(OWNER),
        owner_name: row.name(OWNER_NAME),
        run_as: row.oid(RUN_AS),
        run_as_name: row.name(RUN_AS_NAME),
        handler_oid: row.oid(HANDLER_OID),
        handler: row.text(HANDLER)?,
        concurrency: row.opt_i32(CONCURRENCY),
        priority: row.i32(PRIORITY),
        max_attempts: row.i32(MAX_ATTEMPTS),
        backoff: Backoff::parse(&backoff).expect("constrained by the table"),
        retry_delay_us: row.i64(RETRY_DELAY_US),
        max_retry_delay_us: row.i64(MAX_RETRY_DELAY_US),
        timeout_us: row.i64(TIMEOUT_US),
        keep_completed_us: row.i64(KEEP_COMPLETED_US),
        keep_discarded_us: row.i64(KEEP_DISCARDED_US),
        batch: row.bool(BATCH),
        paused: row.bool(PAUSED),
        parked: row.opt_text(PARKED)?,
        home_system: row.i64(HOME_SYSTEM),
        home_database: row.oid(HOME_DATABASE).to_u32(),
        handler_owner: row.oid(HANDLER_OWNER),
        handler_owner_name: row.name(HANDLER_OWNER_NAME),
        lease_us: row.i64(LEASE_US),
    })
}

/// Those that an index has of these keys.
fn look(index: &str, keys: &[Key]) -> Result<Vec<QueueDefinition>> {
    let mut found = Vec::new();
    heap::read_now("queue", SHAPE, index, keys, |row| {
        found.push(read(&row)?);
        Ok(true)
    })?;
    Ok(found)
}

/// The one that a unique index has of these keys, with its row locked until the transaction ends.
fn lock(index: &str, keys: &[Key], holder: Holder<'_>) -> Result<Option<QueueDefinition>> {
    heap::lock_now("queue", SHAPE, index, keys, holder, |row, _| read(&row))
}

/// The queue of this name; as the extension's owner.
pub fn find(name: &str) -> Result<Option<QueueDefinition>> {
    Ok(look(BY_NAME, &[Key::text_equals(1, name)])?.pop())
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
    entitled(lock(
        BY_NAME,
        &[Key::text_equals(1, name)],
        Holder::WaitedFor(&|| format!("queue \"{name}\"")),
    )?)
}

/// The same for a caller with the rights of its owner; others get an error.
pub fn lock_owned(name: &str, caller: Oid) -> Result<Option<QueueDefinition>> {
    find_for_update(name, |queue| {
        privilege::require_owner(queue, caller)?;
        Ok(true)
    })
}

pub fn find_by_id(queue_id: i32) -> Result<Option<QueueDefinition>> {
    Ok(look(BY_ID, &[Key::int4_equals(1, queue_id)])?.pop())
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
    Ok(
        match lock(BY_ID, &[Key::int4_equals(1, queue_id)], Holder::LetBe)? {
            Some(queue) => LockedQueue::Locked(Box::new(queue)),
            None if find_by_id(queue_id)?.is_some() => LockedQueue::Held,
            None => LockedQueue::Gone,
        },
    )
}

/// The queue of this name, or the error that it does not exist.
pub fn get(name: &str) -> Result<QueueDefinition> {
    match find(name)? {
        Some(queue) => Ok(queue),
        None => Err(no_such(name)?),
    }
}

static ALIKE: Plan = Plan::new(
    "SELECT q.queue FROM pushy_internal.queue q \
      WHERE pg_catalog.lower(q.queue) OPERATOR(pg_catalog.=) pg_catalog.lower($1) ORDER BY 1 LIMIT 1",
    &[BuiltinOid::TEXTOID],
);

/// That there is no queue of this name, and which there is that differs by case only.
#[cold]
pub fn no_such(name: &str) -> Result<Error> {
    let alike = identity::as_owner(|| {
        spi::connect(|spi| {
            let found = spi.run(&ALIKE, params![name]);
            found.first().map(|row| row.text(1)).transpose()
        })
    })?;
    let error = Error::no_such_queue(name);
    Ok(match alike {
        Some(alike) => error.hint(format!(
            "There is a queue {}: names of queues are told apart by case.",
            quote_literal(&alike)
        )),
        None => error,
    })
}

/// All queues of the database.
pub fn all() -> Result<Vec<QueueDefinition>> {
    look(BY_ID, &[])
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

    /// Whether workers outside do its jobs, because it has no handler.
    pub fn is_outside(&self) -> bool {
        self.handler.is_empty()
    }

    /// An error where it has a handler.
    pub fn require_outside(&self) -> Result<()> {
        if self.is_outside() {
            return Ok(());
        }
        let name = quote_literal(&self.name);
        Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "queue \"{}\" has a handler, {}: executors inside the server do its jobs",
                self.name, self.handler
            ),
        )
        .hint(format!(
            "For workers outside register it without a handler, with the options that it shall keep: SELECT pushy.queue_register({name})"
        )))
    }

    /// What it says against running.
    pub fn standing(&self) -> Standing {
        Standing::OPEN
            .with(Standing::PAUSED, self.paused)
            .with(Standing::PARKED, self.parked.is_some())
            .with(Standing::ELSEWHERE, !self.is_home())
            .with(Standing::OUTSIDE, self.is_outside())
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
            // Workers outside are counted by their leases.
            concurrency: match self.concurrency {
                Some(limit) if !self.is_outside() => limit as u32,
                _ => 0,
            },
            standing: self.standing(),
            channel: super::channel_name::hash_of(self),
        }
    }
}
