//! Watches that came here by a restore or a copy of the database: their triggers are there, under other
//! numbers, and tell nothing before somebody says so.

use super::definition::{self, Definition};
use super::table::Table;
use super::triggers;
use crate::errors::Result;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, identity, invalidation, BuiltinOid, Oid};
use crate::{params, queue, sql_function};

// The table of the stored name, if it has triggers of the watch; else the one that has, whatever it is called:
// it was renamed before the copy. Anybody can make such triggers, so it must belong to who declared the watch.
static ELSEWHERE: Plan = Plan::new(
    "WITH holder AS (SELECT t.tgrelid AS relation, r.rolname AS owner \
                       FROM pg_catalog.pg_trigger t \
                       JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) t.tgrelid \
                       JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) c.relowner \
                      WHERE t.tgfoid OPERATOR(pg_catalog.=) ANY (ARRAY['pushy.watch_row()'::pg_catalog.regprocedure, \
                                                                       'pushy.watch_statement()'::pg_catalog.regprocedure]::pg_catalog.oid[]) \
                        AND t.tgparentid OPERATOR(pg_catalog.=) 0::pg_catalog.oid \
                        AND t.tgargs OPERATOR(pg_catalog.=) ($1::pg_catalog.text::pg_catalog.bytea \
                                                             OPERATOR(pg_catalog.||) pg_catalog.decode('00', 'hex')) \
                      GROUP BY t.tgrelid, r.rolname) \
     SELECT COALESCE((SELECT h.relation FROM holder h WHERE h.relation OPERATOR(pg_catalog.=) n.named), \
                     (SELECT pg_catalog.min(h.relation) FROM holder h WHERE h.owner OPERATOR(pg_catalog.=) $3::pg_catalog.name \
                      HAVING pg_catalog.count(*) OPERATOR(pg_catalog.=) 1), \
                     n.named) \
       FROM (SELECT pg_catalog.to_regclass($2)::pg_catalog.oid AS named) n",
    &[BuiltinOid::TEXTOID, BuiltinOid::TEXTOID, BuiltinOid::TEXTOID],
);

/// The table here of a watch that is not at home.
pub fn table_elsewhere(watch: &Definition) -> Option<Oid> {
    find_table(watch.watch_id, &watch.relation_name, &watch.owner_name)
}

fn find_table(watch_id: i32, relation_name: &str, owner_name: &str) -> Option<Oid> {
    spi::connect(|spi| {
        let watch_id = watch_id.to_string();
        let found = spi.look(&ELSEWHERE, params![watch_id, relation_name, owner_name]);
        found
            .row(0)
            .datum(1)
            .map(|oid| Oid::from(oid.value() as u32))
    })
}

sql_function!(pushy_watch_elsewhere, |call| {
    let (watch_id, relation_name, owner_name) =
        (call.opt_i32(0), call.opt_text(1)?, call.opt_text(2)?);
    match (watch_id, relation_name, owner_name) {
        (Some(watch_id), Some(relation_name), Some(owner_name)) => {
            identity::as_owner(|| Ok(find_table(watch_id, &relation_name, &owner_name)))
        }
        _ => Ok(None),
    }
});

/// Makes this database the home of all watches, or of those that the caller has made: for each, its name and why it
/// tells nothing all the same.
pub fn move_in_all(all: bool) -> Result<Vec<(String, Option<String>)>> {
    let watches = identity::as_owner(definition::all)?;
    let caller = identity::current_user();
    watches
        .into_iter()
        .filter(|watch| all || watch.is_made_by(caller))
        .map(|watch| {
            let paused = watch.paused;
            let (name, obstacle) = if watch.is_home() {
                (named(&watch), None)
            } else {
                move_in(watch)?
            };
            let paused = paused.then(|| "the watch is paused; see pushy.watch_resume".to_owned());
            Ok((name, obstacle.or(paused)))
        })
        .collect()
}

fn named(watch: &Definition) -> String {
    format!("{} on {}", watch.name, watch.relation_name)
}

/// Answers its name, with the table as it is called here, and what hinders it.
pub fn move_in(mut watch: Definition) -> Result<(String, Option<String>)> {
    let found = identity::as_owner(|| Ok(table_elsewhere(&watch)))?;
    let Some(relation) = found else {
        let reason = format!("table {} does not exist", watch.relation_name);
        return Ok((named(&watch), Some(reason)));
    };
    let table = Table::look_up(relation)?;
    watch.relation_name.clone_from(&table.qualified);
    let name = named(&watch);
    let Some(owner) = identity::find_role(&watch.owner_name) else {
        let reason = format!("role \"{}\" does not exist", watch.owner_name);
        return Ok((name, Some(reason)));
    };
    let triggers = triggers::by_number(watch.watch_id, table.oid);
    if triggers.len() != watch.triggers.len() {
        let reason = format!(
            "table {} has {} of its {} triggers; declare it again with pushy.watch",
            watch.relation_name,
            triggers.len(),
            watch.triggers.len()
        );
        return Ok((name, Some(reason)));
    }
    watch.relation = relation;
    watch.owner = owner;
    watch.expressions = watch
        .expressions
        .and_then(|_| triggers.iter().find(|(_, holds)| *holds))
        .map(|(oid, _)| *oid);
    watch.triggers = triggers.into_iter().map(|(oid, _)| oid).collect();
    if let Some(held) = &mut watch.queue {
        let queue = identity::as_owner(|| queue::definition::find(&held.name))?;
        let same = queue.filter(|queue| queue.queue_id == held.queue_id && queue.is_home());
        held.owner = same.map_or(Oid::INVALID, |queue| queue.owner);
    }
    watch.home_system = database::system_identifier();
    watch.home_database = database::current();
    identity::as_owner(|| {
        watch.write();
        Ok(())
    })?;
    invalidation::tell_changed(relation);
    Ok((name, None))
}
