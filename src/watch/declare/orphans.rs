//! Triggers of watches that are not here: a dump of one table, of the schema, or without Pushy's schemas brings
//! them alone. They publish nothing, warn, and go when their watch is declared again or ended.

use std::cell::RefCell;
use std::collections::BTreeSet;

use pushy_core::json::read_uuid;
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::trigger::Firing;
use crate::pg::{catalog_trigger, ereport, identity, text, BuiltinOid, Oid};
use crate::watch::table::WatchedTable;
use crate::watch::triggers_there::{arguments, is_ours};
use crate::{params, row, sql_function};

/// What the arguments of a trigger say: whose it is.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    pub token: &'a str,
    pub name: &'a [u8],
}

impl<'a> Claim<'a> {
    /// None where pushy.watch has not made it.
    pub fn of(firing: &'a Firing) -> Option<Self> {
        Some(Self {
            token: (firing.argument(0)?.to_str().ok())
                .filter(|token| read_uuid(token).is_some())?,
            name: firing.argument(1)?.to_bytes(),
        })
    }
}

/// A trigger whose watch is not here, or that is a copy by hand of a watch's.
struct Orphan {
    trigger: Oid,
    relation: Oid,
    /// Of the watch.
    name: String,
}

// Of all triggers the owned ones are left out by a hash of these: a join, of which the planner takes few rows for granted, compares
// each with each, and one table's hundredth watch would wait for 90,000 comparisons.
macro_rules! orphans {
    ($which_watch:literal, $which:literal) => {
        concat!(
            "WITH w AS MATERIALIZED (SELECT w.watch_id, w.token, w.relation, w.triggers, \
                       pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation) AS is_home \
                FROM pushy_internal.watch w), \
             owned AS (SELECT u.trigger FROM w, LATERAL pg_catalog.unnest(w.triggers) u(trigger) \
                        WHERE ",
            $which_watch,
            "w.is_home \
                       UNION ALL \
                       SELECT t.oid \
                         FROM (SELECT ",
            arguments!(),
            " AS args, w.watch_id FROM w WHERE NOT w.is_home) e \
                         JOIN pg_catalog.pg_trigger t \
                           ON pg_catalog.substring(t.tgargs, 1, 37) OPERATOR(pg_catalog.=) e.args \
                        WHERE ",
            $which,
            is_ours!(),
            "             AND CASE WHEN pg_catalog.substring(t.tgargs, 1, 37) OPERATOR(pg_catalog.=) e.args \
                                   THEN pushy_internal.watch_elsewhere(e.watch_id) OPERATOR(pg_catalog.=) t.tgrelid END) \
             SELECT t.oid, t.tgrelid, t.tgargs, t.tgname::pg_catalog.text \
               FROM pg_catalog.pg_trigger t \
              WHERE ",
            $which,
            is_ours!(),
            "   AND NOT t.oid OPERATOR(pg_catalog.=) ANY (SELECT o.trigger FROM owned o) \
              ORDER BY t.tgrelid, t.oid"
        )
    };
}

static OF_TABLE: Plan = Plan::new(
    orphans!(
        "w.relation OPERATOR(pg_catalog.=) $1 AND ",
        "t.tgrelid OPERATOR(pg_catalog.=) $1 AND "
    ),
    &[BuiltinOid::OIDOID],
);

static ALL: Plan = Plan::new(
    orphans!(
        "w.relation OPERATOR(pg_catalog.=) (SELECT t.tgrelid FROM pg_catalog.pg_trigger t WHERE t.oid OPERATOR(pg_catalog.=) u.trigger) AND ",
        ""
    ),
    &[],
);

fn read(row: Row<'_>) -> Orphan {
    let arguments = row.opt_bytes(3).unwrap_or_default();
    let name = arguments.split(|byte| *byte == 0).nth(1);
    Orphan {
        trigger: row.oid(1),
        relation: row.oid(2),
        name: match name {
            Some(name) if !name.is_empty() => text::shown(name),
            // Made by hand.
            _ => text::shown(&row.opt_bytes(4).unwrap_or_default()),
        },
    }
}

fn find(plan: &Plan, params: &[spi::Param]) -> Result<Vec<Orphan>> {
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(plan, params).rows().map(read).collect()
        }))
    })
}

fn distinct(orphans: Vec<Orphan>) -> Vec<(Oid, String)> {
    let named: BTreeSet<(u32, String)> = orphans
        .into_iter()
        .map(|orphan| (orphan.relation.to_u32(), orphan.name))
        .collect();
    named
        .into_iter()
        .map(|(relation, name)| (Oid::from(relation), name))
        .collect()
}

/// The watches that triggers of any table belong to and that are not here: table and name.
pub fn all_named() -> Result<Vec<(Oid, String)>> {
    Ok(distinct(find(&ALL, &[])?))
}

/// The same of one table.
pub fn names_of(table: Oid) -> Result<Vec<String>> {
    let named = distinct(find(&OF_TABLE, params![table])?);
    Ok(named.into_iter().map(|(_, name)| name).collect())
}

/// Drops a table's triggers of a watch of this name that is not here. The table is locked.
pub fn drop(table: Oid, name: &str) -> Result<()> {
    for orphan in find(&OF_TABLE, params![table])? {
        if orphan.name == name {
            catalog_trigger::drop(orphan.trigger);
        }
    }
    Ok(())
}

static ROOT: Plan = Plan::new(
    "WITH RECURSIVE up AS ( \
        SELECT t.tgrelid, t.tgparentid FROM pg_catalog.pg_trigger t WHERE t.oid OPERATOR(pg_catalog.=) $1 \
        UNION ALL \
        SELECT t.tgrelid, t.tgparentid FROM up JOIN pg_catalog.pg_trigger t ON t.oid OPERATOR(pg_catalog.=) up.tgparentid) \
     SELECT up.tgrelid FROM up WHERE up.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid",
    &[BuiltinOid::OIDOID],
);

// The watch of these triggers is there, and is not at home in this table yet.
static WAITS: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.watch w \
                     WHERE w.token OPERATOR(pg_catalog.=) $1::pg_catalog.uuid \
                       AND NOT pushy_internal.is_home(w.home_system, w.home_database, w.home_extension, w.relation) \
                       AND pushy_internal.watch_elsewhere(w.watch_id) OPERATOR(pg_catalog.=) $2)",
    &[BuiltinOid::TEXTOID, BuiltinOid::OIDOID],
);

/// Once a session and table: the write goes on, and nothing is published of it.
#[cold]
pub fn warn(firing: Firing, claim: Claim<'_>) -> Result<()> {
    static WARNED: PerProcess<RefCell<FxHashSet<u32>>> =
        PerProcess::new(RefCell::new(FxHashSet::with_hasher(FxBuildHasher)));
    let is_new = WARNED.with_borrow_mut(|warned| warned.insert(firing.relation().to_u32()));
    if !is_new {
        return Ok(());
    }
    let name = text::shown(claim.name);
    let table = identity::as_owner(|| {
        let relation = spi::connect(|spi| {
            let found = spi.run(&ROOT, params![firing.trigger()]);
            found.first().map(|row| row.oid(1))
        });
        WatchedTable::look_up(relation.unwrap_or(firing.relation()))
    })?;
    let waits = identity::as_owner(|| {
        let params = params![claim.token, table.oid];
        Ok(spi::connect(|spi| spi.run(&WAITS, params).row(0).bool(1)))
    })?;
    if waits {
        ereport::warning(
            &Error::new(
                SqlState::WARNING,
                format!(
                    "changes of table {} make no notices and no jobs: watch \"{name}\" waits, because it or its table came here by a restore",
                    table.qualified
                ),
            )
            .hint(format!(
                "Its maker or the table's owner runs SELECT pushy.watch_resume({}, {}), or SELECT * FROM pushy.resume_after_restore() for all that came along.",
                quote_literal(&table.qualified),
                quote_literal(&name)
            )),
        );
        return Ok(());
    }
    ereport::warning(
        &Error::new(
            SqlState::WARNING,
            format!(
                "changes of table {} make no notices and no jobs: its triggers of watch \"{name}\" are here without the watch",
                table.qualified
            ),
        )
        .hint(format!(
            "A restore leaves that, and who ended the watch without the privilege TRIGGER on the table. Declare the watch again with pushy.watch, or end it: SELECT pushy.unwatch({}, {})",
            quote_literal(&table.qualified),
            quote_literal(&name)
        )),
    );
    Ok(())
}

static WATCHED: Plan = Plan::new(
    concat!(
        "SELECT DISTINCT t.tgrelid FROM pg_catalog.pg_trigger t WHERE ",
        is_ours!()
    ),
    &[],
);

/// Those of tables on which the caller may make a trigger. Where these are few, the triggers of all others are not compared with their
/// watches.
fn named_for_caller() -> Result<Vec<(Oid, String)>> {
    const FEW: usize = 10;
    let watched: Vec<Oid> = identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            spi.run(&WATCHED, &[])
                .rows()
                .map(|row| row.oid(1))
                .collect()
        }))
    })?;
    let may = |table: &Oid| catalog_trigger::may_create_on(*table);
    let mut tables: Vec<Oid> = watched.into_iter().filter(may).collect();
    if tables.len() > FEW {
        return all_named();
    }
    tables.sort_by_key(|table| table.to_u32());
    let mut named = Vec::new();
    for table in tables {
        named.extend(names_of(table)?.into_iter().map(|name| (table, name)));
    }
    Ok(named)
}

sql_function!(pushy_watch_orphans_v1, |call| {
    let named = named_for_caller()?;
    call.answer_rows(|rows| {
        for (relation, name) in named {
            rows.put(row![relation, name]);
        }
        Ok(())
    })
});
