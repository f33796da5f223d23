//! The triggers of a watch that are there: found by what they carry, and dropped.

use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{catalog_trigger, identity, BuiltinOid, Oid};
use crate::watch::definition::WatchDefinition;

static EXISTING: Plan = Plan::new(
    "SELECT t.oid FROM pg_catalog.pg_trigger t \
      WHERE t.tgrelid OPERATOR(pg_catalog.=) $1 AND t.oid OPERATOR(pg_catalog.=) ANY ($2)",
    &[BuiltinOid::OIDOID, BuiltinOid::OIDARRAYOID],
);

/// SQL: trigger t is one of those that watches make, and no copy on a partition.
macro_rules! is_ours {
    () => {
        "t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
         AND t.tgfoid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy.watch_row()'::pg_catalog.regprocedure, \
                                                        'pushy.watch_statement()'::pg_catalog.regprocedure]::pg_catalog.oid[])"
    };
}
pub(in crate::watch) use is_ours;

/// SQL: a FROM and WHERE of all triggers t that watches make, however many others the database has: what stands on their functions is
/// found by an index, and pg_trigger has none by function.
macro_rules! from_ours {
    () => {
        concat!(
            " FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_trigger t ON t.oid OPERATOR(pg_catalog.=) d.objid \
              WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass \
                AND d.refobjid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy.watch_row()'::pg_catalog.regprocedure, \
                                                                'pushy.watch_statement()'::pg_catalog.regprocedure]::pg_catalog.oid[]) \
                AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass AND ",
            is_ours!()
        )
    };
}
pub(in crate::watch) use from_ours;

/// SQL: what pg_trigger.tgargs of the triggers of watch w begin with, 37 bytes.
macro_rules! arguments {
    () => {
        "(w.token::pg_catalog.text::pg_catalog.bytea OPERATOR(pg_catalog.||) pg_catalog.decode('00', 'hex'))"
    };
}
pub(in crate::watch) use arguments;

static CARRYING: Plan = Plan::new(
    concat!(
        "SELECT t.oid, t.tgqual IS NOT NULL AND t.tgname OPERATOR(pg_catalog.~) '_expressions$' \
           FROM pushy_internal.watch w, LATERAL (SELECT ",
        arguments!(),
        " AS args) a, pg_catalog.pg_trigger t \
          WHERE w.watch_id OPERATOR(pg_catalog.=) $1 AND t.tgrelid OPERATOR(pg_catalog.=) $2 \
            AND pg_catalog.substring(t.tgargs, 1, pg_catalog.length(a.args)) OPERATOR(pg_catalog.=) a.args AND ",
        is_ours!(),
        " ORDER BY t.oid"
    ),
    &[BuiltinOid::INT4OID, BuiltinOid::OIDOID],
);

/// The triggers of a table that say they are this watch's, and whether each holds its expressions: where a
/// watch came by a restore, they have other numbers than it knows. As the extension's owner.
pub fn carrying(watch: &WatchDefinition, relation: Oid) -> Vec<(Oid, bool)> {
    spi::connect(|spi| {
        let found = spi.run(&CARRYING, params![watch.watch_id, relation]);
        found.rows().map(|row| (row.oid(1), row.bool(2))).collect()
    })
}

/// Those of a watch's triggers that are (still) there.
pub fn existing(watch: &WatchDefinition) -> Result<Vec<Oid>> {
    if !watch.is_home() {
        let found = identity::as_owner(|| Ok(carrying(watch, watch.relation)))?;
        return Ok(found.into_iter().map(|(trigger, _)| trigger).collect());
    }
    let triggers = crate::pg::array::of_oids(&watch.triggers);
    Ok(spi::connect(|spi| {
        let found = spi.run(&EXISTING, params![watch.relation, triggers]);
        found.rows().map(|row| row.oid(1)).collect()
    }))
}

/// Drops them all. The table is locked.
pub fn drop(watch: &WatchDefinition) -> Result<()> {
    for trigger in existing(watch)? {
        catalog_trigger::drop(trigger);
    }
    Ok(())
}
