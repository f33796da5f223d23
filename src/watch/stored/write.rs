//! Writes a watch as it was declared, pauses it, and removes it.

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::function::Answer;
use crate::pg::heap::{self, Key};
use crate::pg::spi::{self, Plan};
use crate::pg::{array, invalidation, text, BuiltinOid};
use crate::queue::definition::QueueDefinition;
use crate::watch::definition::{Delivery, NamedBy, WatchDefinition};
use crate::watch::{altered, counts, find};
use BuiltinOid::{
    BOOLOID, INT4OID, INT8OID, NAMEARRAYOID, OIDARRAYOID, OIDOID, TEXTARRAYOID, TEXTOID,
};

// A pause is neither taken back nor renewed, because it may have come since the watch was read; one that came from elsewhere has none.
static WRITE: Plan = Plan::new(
    "INSERT INTO pushy_internal.watch AS w (watch_id, relation, relation_name, name, owner, owner_name, channel, events, columns, \
         condition, payload, payload_expr, level, delivery, queue, args_expr, merge, paused, home_system, \
         home_database, triggers, expression_trigger, queue_id, queue_owner, token, relation_owner_name, home_extension, named_by, trigger_texts, fingerprint, topic_expr) \
     VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.name, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25::pg_catalog.uuid, $26::pg_catalog.name, $27, $28, $30, $31, $32) \
     ON CONFLICT (watch_id) DO UPDATE SET relation = excluded.relation, relation_name = excluded.relation_name, name = excluded.name, \
         owner = excluded.owner, owner_name = excluded.owner_name, channel = excluded.channel, \
         events = excluded.events, columns = excluded.columns, condition = excluded.condition, \
         payload = excluded.payload, payload_expr = excluded.payload_expr, level = excluded.level, \
         delivery = excluded.delivery, queue = excluded.queue, \
         queue_id = excluded.queue_id, queue_owner = excluded.queue_owner, args_expr = excluded.args_expr, topic_expr = excluded.topic_expr, \
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
        TEXTARRAYOID, TEXTOID, TEXTOID,
    ],
);

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
                array::of_texts(self.trigger_texts.iter().map(String::as_str)),
                self.print.as_str(),
                self.topic_expr.as_deref(),
            ],
        )
    }
}

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

static TAKE_UP: Plan = Plan::new(
    "UPDATE pushy_internal.watch w SET queue = $2, queue_id = $3, queue_owner = $4 \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1 AND w.queue_id OPERATOR(pg_catalog.=) $5",
    &[INT4OID, TEXTOID, INT4OID, OIDOID, INT4OID],
);

// Answers a row that nobody else has locked.
static LOCK_IF_FREE: Plan = Plan::new(
    "SELECT w.watch_id FROM pushy_internal.watch w WHERE w.watch_id OPERATOR(pg_catalog.=) $1 FOR UPDATE SKIP LOCKED",
    &[INT4OID],
);

/// Has the watches that mean a queue hold it as it is, but for those whose row somebody holds: where the queue has come in the place of the
/// one held, these find it when they fire.
pub fn take_up(queue: &QueueDefinition) -> Result<()> {
    for watch in find::naming(queue)? {
        let Some(held) = &watch.queue else { continue };
        let Some(renewed) = held.renewed(watch.home.system, queue)? else {
            continue;
        };
        let is_free =
            spi::connect(|spi| !spi.run(&LOCK_IF_FREE, params![watch.watch_id]).is_empty());
        if !is_free {
            continue;
        }
        let (name, id) = (renewed.name.as_str(), renewed.queue_id);
        // It may have been declared anew meanwhile.
        let params = params![watch.watch_id, name, id, renewed.owner, held.queue_id];
        if spi::run(&TAKE_UP, params) > 0 && watch.is_home() {
            invalidation::send(watch.relation);
        }
    }
    Ok(())
}

static DELETE: Plan = Plan::new(
    "DELETE FROM pushy_internal.watch w \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1 AND w.token::pg_catalog.text OPERATOR(pg_catalog.=) $2",
    &[INT4OID, TEXTOID],
);

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
