//! Watches in their table, pushy_internal.watch.

use pushy_core::json::read_uuid;

use super::definition::{Delivery, Level, NamedBy, Payload, Residence, WatchDefinition};
use super::table::WatchedTable;
use super::{altered, counts};
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::function::Answer;
use crate::pg::heap::{self, Key};
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::trigger::Op;
use crate::pg::{array, identity, text, BuiltinOid, Oid};
use crate::queue::{self, reference::QueueReference};
use crate::shared::numbers::{self, Numbered};
use BuiltinOid::{
    BOOLOID, INT4OID, INT8OID, NAMEARRAYOID, OIDARRAYOID, OIDOID, TEXTARRAYOID, TEXTOID,
};

/// The table, whose columns a definition is read from as they stand there.
mod table {
    use std::sync::atomic::AtomicU64;

    pub static CHECKED: AtomicU64 = AtomicU64::new(0);
    crate::columns! {
        WATCH_ID "watch_id",
        TOKEN "token",
        RELATION "relation",
        RELATION_NAME "relation_name",
        RELATION_OWNER_NAME "relation_owner_name",
        NAME "name",
        NAMED_BY "named_by",
        OWNER "owner",
        OWNER_NAME "owner_name",
        CHANNEL "channel",
        EVENTS "events",
        COLUMN_NAMES "columns",
        CONDITION "condition",
        PAYLOAD "payload",
        PAYLOAD_EXPR "payload_expr",
        LEVEL "level",
        DELIVERY "delivery",
        QUEUE "queue",
        QUEUE_ID "queue_id",
        QUEUE_OWNER "queue_owner",
        ARGS_EXPR "args_expr",
        MERGE "merge",
        PAUSED "paused",
        HOME_SYSTEM "home_system",
        HOME_DATABASE "home_database",
        HOME_EXTENSION "home_extension",
        TRIGGERS "triggers",
        EXPRESSION_TRIGGER "expression_trigger",
        TRIGGER_TEXTS "trigger_texts",
        FINGERPRINT "fingerprint",
        CREATED_AT "created_at",
        CHANGED_AT "changed_at",
    }
}

// The columns of the table in its order.
macro_rules! columns {
    () => {
        "w.watch_id, w.token, w.relation, w.relation_name, w.relation_owner_name, w.name, w.named_by, w.owner, w.owner_name, \
         w.channel, w.events, w.columns, w.condition, w.payload, w.payload_expr, w.level, w.delivery, w.queue, w.queue_id, \
         w.queue_owner, w.args_expr, w.merge, w.paused, w.home_system, w.home_database, w.home_extension, w.triggers, \
         w.expression_trigger, w.trigger_texts, w.fingerprint"
    };
}

static OF_TABLE: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.watch w, LATERAL (SELECT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation) AS is_home) h \
          WHERE CASE WHEN h.is_home THEN w.relation OPERATOR(pg_catalog.=) $1 \
                     ELSE pushy_internal.watch_elsewhere(w.watch_id) OPERATOR(pg_catalog.=) $1 END \
          ORDER BY w.name, h.is_home DESC"
    ),
    &[OIDOID],
);

static OF_QUEUE: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.watch w WHERE w.queue_id OPERATOR(pg_catalog.=) $1 OR w.queue OPERATOR(pg_catalog.=) $2 \
          ORDER BY w.relation_name, w.name"
    ),
    &[INT4OID, TEXTOID],
);

fn read(row: Row<'_>) -> Result<WatchDefinition> {
    let constrained = "constrained by the table";
    let events = array::texts(row.datum(table::EVENTS).expect(constrained))?;
    let home = Home {
        system: row.i64(table::HOME_SYSTEM),
        database: row.oid(table::HOME_DATABASE),
        extension: row.oid(table::HOME_EXTENSION),
    };
    let relation = row.oid(table::RELATION);
    // A table that was renamed is called by its new name.
    let is_here = home.is_here();
    let qualified = if is_here {
        identity::quoted_name(relation)
    } else {
        None
    };
    let residence = match (is_here, &qualified) {
        (false, _) => Residence::Elsewhere,
        (true, None) => Residence::Bereft,
        (true, Some(_)) => Residence::Home,
    };
    Ok(WatchDefinition {
        watch_id: row.i32(table::WATCH_ID),
        relation,
        relation_name: match qualified {
            Some(name) => name,
            None => row.text(table::RELATION_NAME)?,
        },
        name: row.text(table::NAME)?,
        owner: row.oid(table::OWNER),
        owner_name: row.name(table::OWNER_NAME),
        channel: row.opt_bytes(table::CHANNEL),
        events: events
            .iter()
            .flatten()
            .map(|word| Op::parse(word).expect(constrained))
            .collect(),
        columns: row
            .datum(table::COLUMN_NAMES)
            .map(|names| array::names(names).into_iter().flatten().collect()),
        condition: row.opt_text(table::CONDITION)?,
        payload: Payload::parse(&row.text(table::PAYLOAD)?).expect(constrained),
        payload_expr: row.opt_text(table::PAYLOAD_EXPR)?,
        level: Level::parse(&row.text(table::LEVEL)?).expect(constrained),
        delivery: row
            .opt_text(table::DELIVERY)?
            .map(|word| Delivery::parse(&word).expect(constrained)),
        queue: row.opt_text(table::QUEUE)?.map(|name| QueueReference {
            name,
            queue_id: row.i32(table::QUEUE_ID),
            owner: row.oid(table::QUEUE_OWNER),
        }),
        args_expr: row.opt_text(table::ARGS_EXPR)?,
        merge: row.bool(table::MERGE),
        paused: row.bool(table::PAUSED),
        home,
        residence,
        triggers: array::oids(row.datum(table::TRIGGERS).expect(constrained)),
        expressions: row
            .datum(table::EXPRESSION_TRIGGER)
            .map(|oid| Oid::from(oid.value() as u32)),
        token: row.uuid(table::TOKEN).to_string(),
        relation_owner: row.name(table::RELATION_OWNER_NAME),
        named_by: row
            .opt_text(table::NAMED_BY)?
            .map(|word| NamedBy::parse(&word).expect(constrained)),
        words: array::texts(row.datum(table::TRIGGER_TEXTS).expect(constrained))?
            .into_iter()
            .flatten()
            .collect(),
        print: row.text(table::FINGERPRINT)?,
    })
}

/// Those that an index has of these keys, in its order.
fn look(index: &str, keys: &[Key]) -> Result<Vec<WatchDefinition>> {
    let mut found = Vec::new();
    let shape = (table::COLUMNS, &table::CHECKED);
    heap::read_now("watch", shape, index, keys, |row, _| {
        found.push(read(row)?);
        Ok(true)
    })?;
    Ok(found)
}

fn load(plan: &Plan, params: &[spi::Param]) -> Result<Vec<WatchDefinition>> {
    spi::connect(|spi| spi.run(plan, params).rows().map(read).collect())
}

/// The watch of this number; as the extension's owner, as all that follow.
pub fn find_by_id(watch_id: i32) -> Result<Option<WatchDefinition>> {
    Ok(look("watch_pkey", &[Key::int4_equals(1, watch_id)])?.pop())
}

/// The watch whose triggers carry this.
pub fn find_by_token(token: &str) -> Result<Option<WatchDefinition>> {
    match read_uuid(token) {
        Some(token) => Ok(look("watch_token", &[Key::uuid_equals(1, token)])?.pop()),
        None => Ok(None),
    }
}

/// The watches of a table, by name; also those that a restore or a copy has brought.
pub fn of_table(table: &WatchedTable) -> Result<Vec<WatchDefinition>> {
    let mut watches = load(&OF_TABLE, params![table.oid])?;
    for watch in &mut watches {
        watch.relation = table.oid;
    }
    Ok(watches)
}

pub fn all() -> Result<Vec<WatchDefinition>> {
    look("watch_pkey", &[])
}

/// The watches that enqueue into a queue.
pub(super) fn of_queue(queue: &queue::definition::QueueDefinition) -> Result<Vec<WatchDefinition>> {
    let mut feeding = Vec::new();
    for watch in load(&OF_QUEUE, params![queue.queue_id, queue.name.as_str()])? {
        if watch
            .queue
            .as_ref()
            .map_or(Ok(false), |held| held.feeds(queue))?
        {
            feeding.push(watch);
        }
    }
    Ok(feeding)
}

static OF_CHANNEL: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.watch w WHERE w.channel OPERATOR(pg_catalog.=) $1 ORDER BY w.watch_id"
    ),
    &[TEXTOID],
);

/// The watches that publish on a channel of this exact name.
pub(super) fn of_channel(channel: &[u8]) -> Result<Vec<WatchDefinition>> {
    load(&OF_CHANNEL, params![text::bytes_to_datum(channel)])
}

static HIGHEST_KEPT: Plan = Plan::new(
    "SELECT COALESCE(GREATEST(pg_catalog.max(w.watch_id), 0), 0)::pg_catalog.int8 FROM pushy_internal.watch w",
    &[],
);

static NUMBERS: Numbered = Numbered::watches(|| numbers::highest_in(&HIGHEST_KEPT));

static IS_HELD: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.watch w WHERE w.watch_id OPERATOR(pg_catalog.=) $1)",
    &[INT4OID],
);

pub fn next_id() -> Result<i32> {
    NUMBERS.draw_free(&IS_HELD)
}

static NEW_TOKEN: Plan = Plan::new("SELECT pg_catalog.gen_random_uuid()::pg_catalog.text", &[]);

pub fn new_token() -> Result<String> {
    spi::connect(|spi| spi.run(&NEW_TOKEN, &[]).row(0).text(1))
}

// A pause is neither taken back nor renewed, because it may have come since the watch was read; one that came from elsewhere has none.
static WRITE: Plan = Plan::new(
    "INSERT INTO pushy_internal.watch AS w (watch_id, relation, relation_name, name, owner, owner_name, channel, events, columns, \
         condition, payload, payload_expr, level, delivery, queue, args_expr, merge, paused, home_system, \
         home_database, triggers, expression_trigger, queue_id, queue_owner, token, relation_owner_name, home_extension, named_by, trigger_texts, fingerprint) \
     VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.name, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25::pg_catalog.uuid, $26::pg_catalog.name, $27, $28, $30, $31) \
     ON CONFLICT (watch_id) DO UPDATE SET relation = excluded.relation, relation_name = excluded.relation_name, name = excluded.name, \
         owner = excluded.owner, owner_name = excluded.owner_name, channel = excluded.channel, \
         events = excluded.events, columns = excluded.columns, condition = excluded.condition, \
         payload = excluded.payload, payload_expr = excluded.payload_expr, level = excluded.level, \
         delivery = excluded.delivery, queue = excluded.queue, \
         queue_id = excluded.queue_id, queue_owner = excluded.queue_owner, args_expr = excluded.args_expr, \
         merge = excluded.merge, \
         paused = w.paused AND (w.home_system, w.home_database, w.home_extension) OPERATOR(pg_catalog.=) (excluded.home_system, excluded.home_database, excluded.home_extension), \
         home_system = excluded.home_system, \
         home_database = excluded.home_database, triggers = excluded.triggers, \
         expression_trigger = excluded.expression_trigger, token = excluded.token, relation_owner_name = excluded.relation_owner_name, \
         home_extension = excluded.home_extension, named_by = excluded.named_by, trigger_texts = excluded.trigger_texts, fingerprint = excluded.fingerprint, changed_at = pg_catalog.clock_timestamp() \
         WHERE NOT $29",
    &[
        INT4OID, OIDOID, TEXTOID, TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTARRAYOID, NAMEARRAYOID,
        TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, BOOLOID, INT8OID,
        OIDOID, OIDARRAYOID, OIDOID, INT4OID, OIDOID, TEXTOID, TEXTOID, OIDOID, TEXTOID, BOOLOID,
        TEXTARRAYOID, TEXTOID,
    ],
);

static DELETE: Plan = Plan::new(
    "DELETE FROM pushy_internal.watch w \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1 AND w.token::pg_catalog.text OPERATOR(pg_catalog.=) $2",
    &[INT4OID, TEXTOID],
);

static SET_PAUSED: Plan = Plan::new(
    "UPDATE pushy_internal.watch w SET paused = $2, changed_at = pg_catalog.clock_timestamp() \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1",
    &[INT4OID, BOOLOID],
);

/// Changes nothing else: somebody may be declaring the watch anew.
pub fn set_paused(watch: &WatchDefinition, paused: bool) -> Result<()> {
    altered::require_not_open(watch.watch_id)?;
    watch.lock()?;
    spi::run(&SET_PAUSED, params![watch.watch_id, paused]);
    Ok(())
}

/// Removes the row, if nobody has declared the watch anew; its triggers are the caller's business.
pub fn delete(watch: &WatchDefinition) -> Result<bool> {
    altered::require_not_open(watch.watch_id)?;
    watch.lock()?;
    let deleted = spi::run(&DELETE, params![watch.watch_id, watch.token.as_str()]) > 0;
    if deleted {
        counts::end(watch.watch_id);
    }
    Ok(deleted)
}

// Only of watches without a table is it asked where they may have gone, because that reads every trigger of the database. Those that
// somebody else forgets at this moment are let be: his transaction may be open for long.
static FORGET_LOST: Plan = Plan::new(
    "WITH away AS MATERIALIZED ( \
        SELECT w.watch_id FROM pushy_internal.watch w \
         WHERE ($4 OR w.home_system OPERATOR(pg_catalog.=) $1 AND w.home_database OPERATOR(pg_catalog.=) $2 \
                      AND w.home_extension OPERATOR(pg_catalog.=) $3) \
           AND NOT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation)), \
     lost AS MATERIALIZED ( \
        SELECT w.watch_id FROM pushy_internal.watch w JOIN away a ON a.watch_id OPERATOR(pg_catalog.=) w.watch_id \
         WHERE pushy_internal.watch_elsewhere(w.watch_id) IS NULL FOR UPDATE OF w SKIP LOCKED) \
     DELETE FROM pushy_internal.watch w USING lost l \
      WHERE w.watch_id OPERATOR(pg_catalog.=) l.watch_id \
     RETURNING w.watch_id, pg_catalog.format('%s on %s', w.name, w.relation_name), \
               (w.home_system, w.home_database, w.home_extension) OPERATOR(pg_catalog.=) ($1, $2, $3)",
    &[INT8OID, OIDOID, OIDOID, BOOLOID],
);

/// Removes watches whose table was dropped, and did not come back by a restore; `all`: also those that a restore has brought without
/// their table. Answers these by name.
pub fn forget_lost(all: bool) -> Result<Vec<String>> {
    let here = Home::here();
    spi::connect(|spi| {
        let params = params![here.system, here.database, here.extension, all];
        let lost = spi.run(&FORGET_LOST, params);
        let mut brought = Vec::new();
        for row in lost.rows() {
            counts::end(row.i32(1));
            if !row.bool(3) {
                brought.push(row.text(2)?);
            }
        }
        Ok(brought)
    })
}

impl WatchDefinition {
    /// Writes it anew.
    pub fn write(&self) -> Result<()> {
        altered::require_not_open(self.watch_id)?;
        self.lock()?;
        self.put(false);
        Ok(())
    }

    /// Locks its row, if it is there.
    fn lock(&self) -> Result<()> {
        let what = || format!("watch \"{}\" of table {}", self.name, self.relation_name);
        let keys = [Key::int4_equals(1, self.watch_id)];
        heap::lock_before_write("watch", "watch_pkey", &keys, &what)?;
        Ok(())
    }

    /// Writes a new one, whose number a restore may have brought at this moment.
    pub fn write_new(&self) -> Result<()> {
        if self.put(true) > 0 {
            return Ok(());
        }
        Err(Error::new(
            SqlState::OBJECT_IN_USE,
            format!(
                "number {} of watch \"{}\" was taken by another meanwhile",
                self.watch_id, self.name
            ),
        )
        .hint("Run it again."))
    }

    fn put(&self, is_new: bool) -> u64 {
        let columns = self
            .columns
            .as_ref()
            .map(|columns| array::of_names(columns.iter().map(String::as_str)));
        spi::run(
            &WRITE,
            params![
                self.watch_id,
                self.relation,
                self.relation_name.as_str(),
                self.name.as_str(),
                self.owner,
                self.owner_name.as_str(),
                self.channel.as_deref().map(text::bytes_to_datum),
                array::of_texts(self.events.iter().map(|event| event.as_str())),
                columns.unwrap_or(Answer::Null),
                self.condition.as_deref(),
                self.payload.as_str(),
                self.payload_expr.as_deref(),
                self.level.as_str(),
                self.delivery.map(Delivery::as_str),
                self.queue.as_ref().map(|queue| queue.name.as_str()),
                self.args_expr.as_deref(),
                self.merge,
                self.paused,
                self.home.system,
                self.home.database,
                array::of_oids(&self.triggers),
                self.expressions,
                self.queue.as_ref().map(|queue| queue.queue_id),
                self.queue.as_ref().map(|queue| queue.owner),
                self.token.as_str(),
                self.relation_owner.as_str(),
                self.home.extension,
                self.named_by.map(NamedBy::as_str),
                is_new,
                array::of_texts(self.words.iter().map(String::as_str)),
                self.print.as_str(),
            ],
        )
    }
}
