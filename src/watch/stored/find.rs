//! Looks for watches: by number, by what their triggers carry, of a table, a queue, a channel. As the extension's owner.

use pushy_core::json::read_uuid;

use super::row::{read, table, watch_columns};
use crate::errors::Result;
use crate::params;
use crate::pg::heap::{self, Key};
use crate::pg::spi::{self, Plan};
use crate::pg::text;
use crate::pg::BuiltinOid::{INT4OID, OIDOID, TEXTOID};
use crate::queue::definition::QueueDefinition;
use crate::watch::definition::WatchDefinition;
use crate::watch::table::WatchedTable;
use crate::watch::triggers_there::{arguments, is_ours};

/// Those that an index has of these keys, in its order.
fn look(index: &str, keys: &[Key]) -> Result<Vec<WatchDefinition>> {
    let mut found = Vec::new();
    let shape = (table::COLUMNS, &table::CHECKED);
    heap::read_now("watch", shape, index, keys, |row| {
        found.push(read(row)?);
        Ok(true)
    })?;
    Ok(found)
}

fn load(plan: &Plan, params: &[spi::Param]) -> Result<Vec<WatchDefinition>> {
    spi::connect(|spi| spi.run(plan, params).rows().map(read).collect())
}

// Where a watch has gone is asked only of those that may have come to this table: each answer looks through the triggers of all watches.
static OF_TABLE: Plan = Plan::new(
    concat!(
        "SELECT ",
        watch_columns!(),
        " FROM pushy_internal.watch w, LATERAL (SELECT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation) AS is_home, ",
        arguments!(),
        " AS args) h \
          WHERE CASE WHEN h.is_home THEN w.relation OPERATOR(pg_catalog.=) $1 \
                     WHEN h.args OPERATOR(pg_catalog.=) ANY (SELECT pg_catalog.substring(t.tgargs, 1, 37) FROM pg_catalog.pg_trigger t \
                                                             WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND ",
        is_ours!(),
        ") \
                          OR pg_catalog.to_regclass(w.relation_name) OPERATOR(pg_catalog.=) $1 \
                     THEN pushy_internal.watch_elsewhere(w.watch_id) OPERATOR(pg_catalog.=) $1 \
                     ELSE false END \
          ORDER BY w.name, h.is_home DESC"
    ),
    &[OIDOID],
);

static NAMING: Plan = Plan::new(
    concat!(
        "SELECT ",
        watch_columns!(),
        " FROM pushy_internal.watch w WHERE w.queue_id OPERATOR(pg_catalog.=) $1 OR w.queue OPERATOR(pg_catalog.=) $2 \
          ORDER BY w.relation_name, w.name"
    ),
    &[INT4OID, TEXTOID],
);

/// The watch of this number.
pub fn by_id(watch_id: i32) -> Result<Option<WatchDefinition>> {
    Ok(look("watch_pkey", &[Key::int4_equals(1, watch_id)])?.pop())
}

/// The watch whose triggers carry this.
pub fn by_token(token: &str) -> Result<Option<WatchDefinition>> {
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
pub fn of_queue(queue: &QueueDefinition) -> Result<Vec<WatchDefinition>> {
    let mut watches = naming(queue)?;
    watches.retain(|watch| {
        let held = watch.queue.as_ref();
        held.is_some_and(|held| held.queue_id == queue.queue_id)
    });
    Ok(watches)
}

/// The watches that hold a queue's number, or have its name.
pub fn naming(queue: &QueueDefinition) -> Result<Vec<WatchDefinition>> {
    load(&NAMING, params![queue.queue_id, queue.name.as_str()])
}

static OF_CHANNEL: Plan = Plan::new(
    concat!(
        "SELECT ",
        watch_columns!(),
        " FROM pushy_internal.watch w WHERE w.channel OPERATOR(pg_catalog.=) $1 ORDER BY w.watch_id"
    ),
    &[TEXTOID],
);

/// The watches that publish on a channel of this exact name.
pub fn of_channel(channel: &[u8]) -> Result<Vec<WatchDefinition>> {
    load(&OF_CHANNEL, params![text::bytes_to_datum(channel)])
}
