//! Watches that came here by a restore or a copy of the database: their triggers are there, under other
//! numbers, and tell nothing before somebody says so.

use super::definition::{self, Definition};
use super::table::Table;
use super::triggers;
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{database, identity, invalidation, BuiltinOid, Oid};

static TABLE_BY_NAME: Plan = Plan::new(
    "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid",
    &[BuiltinOid::TEXTOID],
);

/// Makes this database the home of all watches: for each, its name and why it tells nothing all the same.
pub fn move_in_all() -> Result<Vec<(String, Option<String>)>> {
    let watches = identity::as_owner(definition::all)?;
    watches
        .into_iter()
        .map(|watch| {
            let name = format!("{} on {}", watch.name, watch.relation_name);
            let paused = watch.paused;
            let obstacle = if watch.is_home() {
                None
            } else {
                move_in(watch)?
            };
            let paused = paused.then(|| "the watch is paused; see pushy.watch_resume".to_owned());
            Ok((name, obstacle.or(paused)))
        })
        .collect()
}

fn move_in(mut watch: Definition) -> Result<Option<String>> {
    let found = spi::connect(|spi| {
        let found = spi.run(&TABLE_BY_NAME, params![watch.relation_name.as_str()]);
        found
            .row(0)
            .datum(1)
            .map(|oid| Oid::from(oid.value() as u32))
    });
    let Some(relation) = found else {
        return Ok(Some(format!(
            "table {} does not exist",
            watch.relation_name
        )));
    };
    let Some(owner) = identity::find_role(&watch.owner_name) else {
        return Ok(Some(format!(
            "role \"{}\" does not exist",
            watch.owner_name
        )));
    };
    let table = Table::look_up(relation)?;
    let triggers = triggers::by_number(watch.watch_id, table.oid);
    if triggers.len() != watch.triggers.len() {
        return Ok(Some(format!(
            "table {} has {} of its {} triggers; declare it again with pushy.watch",
            watch.relation_name,
            triggers.len(),
            watch.triggers.len()
        )));
    }
    watch.relation = relation;
    watch.owner = owner;
    watch.expressions = watch
        .expressions
        .and_then(|_| triggers.iter().find(|(_, holds)| *holds))
        .map(|(oid, _)| *oid);
    watch.triggers = triggers.into_iter().map(|(oid, _)| oid).collect();
    watch.home_system = database::system_identifier();
    watch.home_database = database::current();
    identity::as_owner(|| {
        watch.write();
        Ok(())
    })?;
    invalidation::tell_changed(relation);
    Ok(None)
}
