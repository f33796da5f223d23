//! A row of pushy_internal.watch, as a definition.

use std::sync::atomic::AtomicU64;

use crate::errors::Result;
use crate::pg::home::Home;
use crate::pg::spi::Row;
use crate::pg::trigger::Op;
use crate::pg::{array, identity, Oid};
use crate::queue::reference::QueueReference;
use crate::watch::definition::{Delivery, Level, NamedBy, Payload, Residence, WatchDefinition};

/// The table, whose columns a definition is read from as they stand there.
pub(super) mod table {
    use super::AtomicU64;

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
        TOPIC_EXPR "topic_expr",
    }
}

// The same columns, as a query answers them.
macro_rules! watch_columns {
    () => {
        "w.watch_id, w.token, w.relation, w.relation_name, w.relation_owner_name, w.name, w.named_by, w.owner, w.owner_name, \
         w.channel, w.events, w.columns, w.condition, w.payload, w.payload_expr, w.level, w.delivery, w.queue, w.queue_id, \
         w.queue_owner, w.args_expr, w.merge, w.paused, w.home_system, w.home_database, w.home_extension, w.triggers, \
         w.expression_trigger, w.trigger_texts, w.fingerprint, w.created_at, w.changed_at, w.topic_expr"
    };
}
pub(super) use watch_columns;

pub(super) fn read(row: Row<'_>) -> Result<WatchDefinition> {
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
            .flatten()
            .map(|word| Op::parse(&word).expect(constrained))
            .collect(),
        columns: row
            .datum(table::COLUMN_NAMES)
            .map(|names| array::names(names).flatten().collect()),
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
        topic_expr: row.opt_text(table::TOPIC_EXPR)?,
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
        trigger_texts: array::texts(row.datum(table::TRIGGER_TEXTS).expect(constrained))?
            .flatten()
            .collect(),
        print: row.text(table::FINGERPRINT)?,
    })
}
