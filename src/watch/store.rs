//! Watches in their table, pushy_internal.watch.

use super::definition::*;
use super::table::WatchedTable;
use super::{altered, counts};
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::function::Answer;
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::trigger::Op;
use crate::pg::{array, identity, sequence, text, BuiltinOid, Oid};
use crate::queue::{self, reference::QueueReference};
use BuiltinOid::{
    BOOLOID, INT4OID, INT8OID, NAMEARRAYOID, OIDARRAYOID, OIDOID, TEXTARRAYOID, TEXTOID,
};

// A table that was renamed is called by its new name.
macro_rules! columns {
    () => {
        "w.watch_id, w.relation, \
         COALESCE((SELECT pg_catalog.format('%I.%I', n.nspname, c.relname) \
                     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
                    WHERE c.oid OPERATOR(pg_catalog.=) w.relation AND pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation)), \
                  w.relation_name), w.name, w.owner, w.owner_name::pg_catalog.text, w.channel, \
         w.events, w.columns, w.condition, w.payload, w.payload_expr, w.level, w.delivery, w.queue, \
         w.args_expr, w.merge, w.paused, w.home_system, w.home_database, w.triggers, w.expression_trigger, w.queue_id, w.queue_owner, \
         w.token::pg_catalog.text, w.relation_owner_name::pg_catalog.text, w.home_extension, w.named_by_table, w.trigger_texts, w.fingerprint"
    };
}

static BY_ID: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.watch w WHERE w.watch_id OPERATOR(pg_catalog.=) $1"
    ),
    &[INT4OID],
);

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

static ALL: Plan = Plan::new(
    concat!(
        "SELECT ",
        columns!(),
        " FROM pushy_internal.watch w ORDER BY w.watch_id"
    ),
    &[],
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
    let events = array::texts(row.datum(8).expect(constrained))?;
    let home = Home {
        system: row.i64(19),
        database: row.oid(20),
        extension: row.oid(27),
    };
    Ok(WatchDefinition {
        watch_id: row.i32(1),
        relation: row.oid(2),
        relation_name: row.text(3)?,
        name: row.text(4)?,
        owner: row.oid(5),
        owner_name: row.text(6)?,
        channel: row.opt_bytes(7),
        events: events
            .iter()
            .flatten()
            .map(|word| Op::parse(word).expect(constrained))
            .collect(),
        columns: row
            .datum(9)
            .map(|names| array::names(names).into_iter().flatten().collect()),
        condition: row.opt_text(10)?,
        payload: Payload::parse(&row.text(11)?).expect(constrained),
        payload_expr: row.opt_text(12)?,
        level: Level::parse(&row.text(13)?).expect(constrained),
        delivery: row
            .opt_text(14)?
            .map(|word| Delivery::parse(&word).expect(constrained)),
        queue: row.opt_text(15)?.map(|name| QueueReference {
            name,
            queue_id: row.i32(23),
            owner: row.oid(24),
        }),
        args_expr: row.opt_text(16)?,
        merge: row.bool(17),
        paused: row.bool(18),
        home,
        stands: if !home.is_here() {
            Residence::Elsewhere
        } else if identity::owner_of(row.oid(2)).is_none() {
            Residence::Bereft
        } else {
            Residence::Home
        },
        triggers: array::oids(row.datum(21).expect(constrained)),
        expressions: row.datum(22).map(|oid| Oid::from(oid.value() as u32)),
        token: row.text(25)?,
        relation_owner: row.text(26)?,
        named_by_table: row.bool(28),
        words: array::texts(row.datum(29).expect(constrained))?
            .into_iter()
            .flatten()
            .collect(),
        print: row.text(30)?,
    })
}

fn load(plan: &Plan, params: &[spi::Param]) -> Result<Vec<WatchDefinition>> {
    spi::connect(|spi| spi.run(plan, params).rows().map(read).collect())
}

/// The watch of this number; as the extension's owner, as all that follow.
pub fn find_by_id(watch_id: i32) -> Result<Option<WatchDefinition>> {
    Ok(load(&BY_ID, params![watch_id])?.pop())
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
    load(&ALL, &[])
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

// A number that no watch has: the sequence may have been set, by a restore too.
static NEXT_ID: Plan = Plan::new(
    "SELECT n.id, EXISTS (SELECT FROM pushy_internal.watch w WHERE w.watch_id OPERATOR(pg_catalog.=) n.id) \
       FROM (SELECT pg_catalog.nextval('pushy_internal.watch_id_seq'::pg_catalog.regclass)::pg_catalog.int4 AS id) n",
    &[],
);

pub fn next_id() -> i32 {
    sequence::next_free(&NEXT_ID)
}

static NEW_TOKEN: Plan = Plan::new("SELECT pg_catalog.gen_random_uuid()::pg_catalog.text", &[]);

pub fn new_token() -> Result<String> {
    spi::connect(|spi| spi.run(&NEW_TOKEN, &[]).row(0).text(1))
}

static WRITE: Plan = Plan::new(
    "INSERT INTO pushy_internal.watch (watch_id, relation, relation_name, name, owner, owner_name, channel, events, columns, \
         condition, payload, payload_expr, level, delivery, queue, args_expr, merge, paused, home_system, \
         home_database, triggers, expression_trigger, queue_id, queue_owner, token, relation_owner_name, home_extension, named_by_table, trigger_texts, fingerprint) \
     VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.name, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25::pg_catalog.uuid, $26::pg_catalog.name, $27, $28, $30, $31) \
     ON CONFLICT (watch_id) DO UPDATE SET relation = excluded.relation, relation_name = excluded.relation_name, name = excluded.name, \
         owner = excluded.owner, owner_name = excluded.owner_name, channel = excluded.channel, \
         events = excluded.events, columns = excluded.columns, condition = excluded.condition, \
         payload = excluded.payload, payload_expr = excluded.payload_expr, level = excluded.level, \
         delivery = excluded.delivery, queue = excluded.queue, \
         queue_id = excluded.queue_id, queue_owner = excluded.queue_owner, args_expr = excluded.args_expr, \
         merge = excluded.merge, paused = excluded.paused, home_system = excluded.home_system, \
         home_database = excluded.home_database, triggers = excluded.triggers, \
         expression_trigger = excluded.expression_trigger, token = excluded.token, relation_owner_name = excluded.relation_owner_name, \
         home_extension = excluded.home_extension, named_by_table = excluded.named_by_table, trigger_texts = excluded.trigger_texts, fingerprint = excluded.fingerprint, changed_at = pg_catalog.clock_timestamp() \
         WHERE NOT $29",
    &[
        INT4OID, OIDOID, TEXTOID, TEXTOID, OIDOID, TEXTOID, TEXTOID, TEXTARRAYOID, NAMEARRAYOID,
        TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, BOOLOID, BOOLOID, INT8OID,
        OIDOID, OIDARRAYOID, OIDOID, INT4OID, OIDOID, TEXTOID, TEXTOID, OIDOID, BOOLOID, BOOLOID,
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
pub fn set_paused(watch_id: i32, paused: bool) -> Result<()> {
    altered::require_not_open(watch_id)?;
    spi::run(&SET_PAUSED, params![watch_id, paused]);
    Ok(())
}

/// Removes the row, if nobody has declared the watch anew; its triggers are the caller's business.
pub fn delete(watch: &WatchDefinition) -> Result<bool> {
    altered::require_not_open(watch.watch_id)?;
    let deleted = spi::run(&DELETE, params![watch.watch_id, watch.token.as_str()]) > 0;
    if deleted {
        counts::end(watch.watch_id);
    }
    Ok(deleted)
}

// Only of watches without a table is it asked where they may have gone, because that reads every trigger of the database.
static FORGET_LOST: Plan = Plan::new(
    "WITH lost AS MATERIALIZED ( \
        SELECT w.watch_id FROM pushy_internal.watch w \
         WHERE w.home_system OPERATOR(pg_catalog.=) $1 AND w.home_database OPERATOR(pg_catalog.=) $2 \
           AND w.home_extension OPERATOR(pg_catalog.=) $3 \
           AND NOT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation)) \
     DELETE FROM pushy_internal.watch w USING lost l \
      WHERE w.watch_id OPERATOR(pg_catalog.=) l.watch_id \
        AND pushy_internal.watch_elsewhere(l.watch_id) IS NULL \
     RETURNING w.watch_id",
    &[INT8OID, OIDOID, OIDOID],
);

/// Removes watches whose table was dropped, and did not come back by a restore.
pub fn forget_lost() {
    let here = Home::here();
    spi::connect(|spi| {
        let params = params![here.system, here.database, here.extension];
        let lost = spi.run(&FORGET_LOST, params);
        lost.rows().for_each(|row| counts::end(row.i32(1)));
    });
}

impl WatchDefinition {
    /// Writes it anew.
    pub fn write(&self) -> Result<()> {
        altered::require_not_open(self.watch_id)?;
        self.put(false);
        Ok(())
    }

    /// Writes a new one, whose number somebody may have drawn at the same time, if the sequence was set in between.
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
        .hint("Run it again. Somebody has set sequence pushy_internal.watch_id_seq, as a role with pg_write_all_data may."))
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
                self.named_by_table,
                is_new,
                array::of_texts(self.words.iter().map(String::as_str)),
                self.print.as_str(),
            ],
        )
    }
}
