//! A subscription as its row has it.

use pushy_core::log::cursor::Cursor;

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::log::filter::{Chosen, Filter};
use crate::params;
use crate::pg::heap::{self, Key};
use crate::pg::home::{self, Home};
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{array, identity, BuiltinOid, Datum, Oid};
use crate::queue::definition::QueueDefinition;
use crate::queue::reference::QueueReference;

pub struct Subscription {
    /// Never that of another, whatever it is called.
    pub number: i32,
    pub name: String,
    pub owner: Oid,
    pub owner_name: String,
    /// Exact names, in the database's encoding; None: all.
    pub channels: Option<Vec<Vec<u8>>>,
    /// Patterns as they are written, in the database's encoding; None: all, and what has no topic.
    pub topics: Option<Vec<Vec<u8>>>,
    pub queue: Option<QueueReference>,
    pub cursor: Cursor,
    /// Where it was created.
    pub home: Home,
    /// It was created here, in this cluster, database and life of the extension: else its cursor means nothing.
    pub is_home: bool,
    pub stopped: Option<String>,
    pub created_at: i64,
    pub acked_at: Option<i64>,
    /// The transaction that wrote the row: who looks twice sees whether it is the same.
    pub version: u32,
}

macro_rules! select {
    ($which:literal) => {
        concat!(
            "SELECT s.subscription_id, s.name, s.owner, s.owner_name::pg_catalog.text, s.channels, s.queue, s.epoch, s.tick, s.n, \
                    s.home_system, s.home_database, s.stopped, s.created_at, s.acked_at, \
                    s.queue_id, s.queue_owner, s.home_extension, s.xmin, s.topics FROM pushy_internal.subscription s ",
            $which
        )
    };
}

static BY_NAME: Plan = Plan::new(
    select!("WHERE s.name OPERATOR(pg_catalog.=) $1"),
    &[BuiltinOid::TEXTOID],
);

static BY_NAME_LOCKED: Plan = Plan::new(
    select!("WHERE s.name OPERATOR(pg_catalog.=) $1 FOR UPDATE"),
    &[BuiltinOid::TEXTOID],
);

static BY_NAME_IF_FREE: Plan = Plan::new(
    select!("WHERE s.name OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED"),
    &[BuiltinOid::TEXTOID],
);

static NAMING: Plan = Plan::new(
    select!("WHERE s.queue_id OPERATOR(pg_catalog.=) $1 OR s.queue OPERATOR(pg_catalog.=) $2 ORDER BY s.name"),
    &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
);

static ALL: Plan = Plan::new(select!("ORDER BY s.name"), &[]);

fn read(row: Row<'_>) -> Result<Subscription> {
    let home = Home {
        system: row.i64(10),
        database: row.oid(11),
        extension: row.oid(17),
    };
    Ok(Subscription {
        number: row.i32(1),
        name: row.text(2)?,
        owner: row.oid(3),
        owner_name: row.text(4)?,
        channels: row.datum(5).map(all_of),
        topics: row.datum(19).map(all_of),
        queue: row.opt_text(6)?.map(|name| QueueReference {
            name,
            queue_id: row.i32(15),
            owner: row.oid(16),
        }),
        cursor: Cursor::new(row.i64(7), row.i64(8), row.i32(9)),
        is_home: home.is_here(),
        home,
        stopped: row.opt_text(12)?,
        created_at: row.i64(13),
        acked_at: row.opt_i64(14),
        version: row.oid(18).to_u32(),
    })
}

fn all_of(array: Datum) -> Vec<Vec<u8>> {
    array::text_bytes(array).flatten().collect()
}

fn load(plan: &Plan, params: &[spi::Param]) -> Result<Vec<Subscription>> {
    spi::connect(|spi| spi.run(plan, params).rows().map(read).collect())
}

/// The subscriptions that hold a queue's number, or have its name; as the extension's owner.
pub fn naming(queue: &QueueDefinition) -> Result<Vec<Subscription>> {
    load(&NAMING, params![queue.queue_id, queue.name.as_str()])
}

/// The subscription of this name; as the extension's owner.
pub fn find(name: &str) -> Result<Option<Subscription>> {
    Ok(load(&BY_NAME, params![name])?.pop())
}

/// The same with its row locked until the transaction ends. Whoever has not its owner's rights is refused before there is a
/// lock to hold or to wait for.
pub fn lock_owned(name: &str, caller: Oid) -> Result<Option<Subscription>> {
    let Some(seen) = find(name)? else {
        return Ok(None);
    };
    seen.require_owner(caller)?;
    let locked = lock(name)?;
    if let Some(subscription) = &locked {
        subscription.require_owner(caller)?;
    }
    Ok(locked)
}

/// The same whoever asks: the caller has found that it may.
pub fn lock(name: &str) -> Result<Option<Subscription>> {
    let what = || format!("subscription \"{name}\"");
    let keys = [Key::text_equals(1, name)];
    heap::lock_before_write("subscription", "subscription_pkey", &keys, &what)?;
    Ok(load(&BY_NAME_LOCKED, params![name])?.pop())
}

/// The same for a worker, which waits for nobody: None also where somebody else holds its row.
pub fn find_if_free(name: &str) -> Result<Option<Subscription>> {
    Ok(load(&BY_NAME_IF_FREE, params![name])?.pop())
}

static OF_QUEUES: Plan = Plan::new(
    "SELECT s.subscription_id, s.name, s.owner, s.queue IS NOT NULL FROM pushy_internal.subscription s ORDER BY s.name",
    &[],
);

/// A subscription that feeds a queue: its number, its name and its owner.
pub type OfQueue = (i32, String, Oid);

/// Whether there is a subscription, and those of queues.
pub fn of_queues() -> Result<(bool, Vec<OfQueue>)> {
    spi::connect(|spi| {
        let all = spi.run(&OF_QUEUES, &[]);
        let of_queues = all.rows().filter(|row| row.bool(4));
        let read = of_queues.map(|row| Ok((row.i32(1), row.text(2)?, row.oid(3))));
        Ok((!all.is_empty(), read.collect::<Result<_>>()?))
    })
}

/// All of the database, by name.
pub fn all() -> Result<Vec<Subscription>> {
    load(&ALL, &[])
}

/// The subscription, for a caller that has its owner's rights.
pub fn owned(name: &str, caller: Oid) -> Result<Subscription> {
    let found = identity::as_owner(|| find(name))?;
    let found = found.ok_or_else(|| no_such_subscription(name))?;
    found.require_owner(caller)?;
    Ok(found)
}

impl Subscription {
    /// The owner as it is known here; None: gone.
    pub fn owner_here(&self) -> Option<Oid> {
        home::role(self.home.system, self.owner, &self.owner_name)
    }

    /// Whether `role` has the rights of the owner.
    pub fn is_owner(&self, role: Oid) -> bool {
        identity::is_superuser(role)
            || home::has_rights_of(role, self.home.system, self.owner, &self.owner_name)
    }

    /// The owner's name as it is now; None: gone, and who has its name is another. Away from home the name as it came.
    pub fn shown_owner(&self) -> Option<String> {
        match self.owner_here() {
            Some(owner) => Some(identity::role_name(owner)),
            None => (!self.is_home).then(|| self.owner_name.clone()),
        }
    }

    /// What its owner may hear of its channels, now.
    pub fn filter(&self) -> Result<Filter> {
        // A number that is nobody's hears what all hear.
        let owner = self.owner_here().unwrap_or(Oid::INVALID);
        Filter::of(self.chosen(), owner)
    }

    /// What it names.
    pub fn chosen(&self) -> Chosen<'_> {
        Chosen {
            channels: self.channels.as_deref(),
            topics: self.topics.as_deref(),
        }
    }

    pub fn require_owner(&self, caller: Oid) -> Result<()> {
        identity::accept_changes();
        if self.is_owner(caller) {
            return Ok(());
        }
        Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("must be owner of subscription \"{}\"", self.name),
        )
        .hint("Use the role that created the subscription, or a member of it."))
    }
}

pub fn no_such_subscription(name: &str) -> Error {
    Error::new(
        SqlState::UNDEFINED_OBJECT,
        format!("subscription \"{name}\" does not exist"),
    )
    .hint(format!(
        "Create it: SELECT pushy.subscription_create({}, '{{channel}}'); the view pushy.subscriptions lists yours.",
        quote_literal(name)
    ))
}

static MOVE: Plan = Plan::new(
    "UPDATE pushy_internal.subscription SET epoch = $2, tick = $3, n = $4, home_system = $5, home_database = $6, home_extension = $9, \
            acked_at = COALESCE($7, acked_at), \
            owner = CASE WHEN home_system OPERATOR(pg_catalog.=) $5 THEN owner ELSE $8 END \
      WHERE subscription_id OPERATOR(pg_catalog.=) $1 \
        AND (home_system OPERATOR(pg_catalog.<>) $5 OR home_database OPERATOR(pg_catalog.<>) $6 \
             OR home_extension OPERATOR(pg_catalog.<>) $9 OR (epoch, tick, n) OPERATOR(pg_catalog.<) ($2, $3, $4))",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT8OID,
        BuiltinOid::OIDOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::OIDOID,
        BuiltinOid::OIDOID,
    ],
);

/// Moves the cursor forward; false when it is there already. `acked_at`: it was acknowledged then, not only
/// passed over. One that came here from another cluster is at home from then on, and its owner's number is the one here.
pub fn move_to(subscription: &Subscription, cursor: Cursor, acked_at: Option<i64>) -> bool {
    let here = Home::here();
    let moved = spi::run(
        &MOVE,
        params![
            subscription.number,
            cursor.epoch,
            cursor.tick,
            cursor.n,
            here.system,
            here.database,
            acked_at,
            subscription.owner_here().unwrap_or(Oid::INVALID),
            here.extension,
        ],
    );
    moved > 0
}
