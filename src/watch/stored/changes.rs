//! Changes of a watch that are written while others may change it too: each writes what it is about, and nothing else, because a
//! definition as it was read some time ago would take back what others have written since. As the extension's owner.

use crate::errors::Result;
use crate::params;
use crate::pg::function::Answer;
use crate::pg::spi::{self, Plan};
use crate::pg::{array, BuiltinOid, Oid};
use crate::watch::altered;
use crate::watch::definition::WatchDefinition;

use BuiltinOid::{INT4OID, INT8OID, NAMEARRAYOID, OIDARRAYOID, OIDOID, TEXTARRAYOID, TEXTOID};

static ATTACH: Plan = Plan::new(
    "UPDATE pushy_internal.watch w SET triggers = $2, expression_trigger = $3, token = $4::pg_catalog.uuid, trigger_texts = $5, \
            fingerprint = $6, changed_at = pg_catalog.clock_timestamp() \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1",
    &[INT4OID, OIDARRAYOID, OIDOID, TEXTOID, TEXTARRAYOID, TEXTOID],
);

/// Its triggers were made again; false when the watch was ended meanwhile.
pub fn attach(watch: &WatchDefinition) -> bool {
    let attached = params![
        watch.watch_id,
        array::of_oids(&watch.triggers),
        watch.expressions,
        watch.token.as_str(),
        array::of_texts(watch.trigger_texts.iter().map(String::as_str)),
        watch.print.as_str(),
    ];
    spi::run(&ATTACH, attached) > 0
}

static REWORD: Plan = Plan::new(
    "UPDATE pushy_internal.watch w SET columns = $2, condition = $3, payload_expr = $4, args_expr = $5, trigger_texts = $6, topic_expr = $7, \
            changed_at = pg_catalog.clock_timestamp() \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1",
    &[INT4OID, NAMEARRAYOID, TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID, TEXTOID],
);

/// A column that it names is called otherwise now.
pub fn reword(watch: &WatchDefinition) -> Result<()> {
    altered::require_not_open(watch.watch_id)?;
    let columns = watch.columns.as_ref();
    let columns = columns.map(|columns| array::of_names(columns.iter().map(String::as_str)));
    let reworded = params![
        watch.watch_id,
        columns.unwrap_or(Answer::Null),
        watch.condition.as_deref(),
        watch.payload_expr.as_deref(),
        watch.args_expr.as_deref(),
        array::of_texts(watch.trigger_texts.iter().map(String::as_str)),
        watch.topic_expr.as_deref(),
    ];
    spi::run(&REWORD, reworded);
    Ok(())
}

static BRING_HOME: Plan = Plan::new(
    "UPDATE pushy_internal.watch w SET relation = $2, relation_name = $3, relation_owner_name = $4::pg_catalog.name, \
            owner = $5, owner_name = $6::pg_catalog.name, queue_owner = CASE WHEN w.queue_owner IS NOT NULL THEN $7 END, \
            home_system = $8, home_database = $9, home_extension = $10, triggers = $11, expression_trigger = $12, fingerprint = $13, \
            changed_at = pg_catalog.clock_timestamp() \
      WHERE w.watch_id OPERATOR(pg_catalog.=) $1",
    &[
        INT4OID, OIDOID, TEXTOID, TEXTOID, OIDOID, TEXTOID, OIDOID, INT8OID, OIDOID, OIDOID, OIDARRAYOID, OIDOID, TEXTOID,
    ],
);

/// It came from elsewhere, and this database is its home now.
pub fn bring_home(watch: &WatchDefinition) -> Result<()> {
    altered::require_not_open(watch.watch_id)?;
    let queue_owner = watch.queue.as_ref().map(|queue| queue.owner);
    let brought = params![
        watch.watch_id,
        watch.relation,
        watch.relation_name.as_str(),
        watch.relation_owner.as_str(),
        watch.owner,
        watch.owner_name.as_str(),
        queue_owner.unwrap_or(Oid::INVALID),
        watch.home.system,
        watch.home.database,
        watch.home.extension,
        array::of_oids(&watch.triggers),
        watch.expressions,
        watch.print.as_str(),
    ];
    spi::run(&BRING_HOME, brought);
    Ok(())
}
