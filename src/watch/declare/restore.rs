//! Watches that came here by a restore or a copy of the database: their triggers are there, under other
//! numbers, and publish nothing before somebody says so.

use crate::errors::{quote_literal, Result};
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, invalidation, BuiltinOid, Oid};
use crate::watch::changes;
use crate::watch::definition::{Residence, WatchDefinition};
use crate::watch::orphans;
use crate::watch::table::WatchedTable;
use crate::watch::trigger_texts;
use crate::watch::triggers_there::{self, arguments, from_ours, is_ours};
use crate::watch::{find, write};
use crate::{params, sql_function};

// The table of the stored name, if it has triggers of the watch. Else the one table that has such triggers, whatever its
// name, because it may have been renamed before the copy. Else, for a watch that came from elsewhere, the table of the
// stored name. Anybody can make such a table and such triggers, so its owner must be the former owner by name (as a restore
// assigns tables), the watch's maker or a superuser.
static ELSEWHERE: Plan = Plan::new(
    concat!(
        "WITH w AS (SELECT w.*, ",
        arguments!(),
        " AS args, w.home_system OPERATOR(pg_catalog.=) $2 AND w.home_database OPERATOR(pg_catalog.=) $3 \
                        AND w.home_extension OPERATOR(pg_catalog.=) $4 AS is_here \
                     FROM pushy_internal.watch w WHERE w.watch_id OPERATOR(pg_catalog.=) $1), \
              trusted AS (SELECT c.oid, pg_catalog.to_regclass(w.relation_name)::pg_catalog.oid OPERATOR(pg_catalog.=) c.oid AS is_named, \
                                 EXISTS (SELECT FROM pg_catalog.pg_trigger t \
                                          WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid AND ",
        is_ours!(),
        " AND pg_catalog.substring(t.tgargs, 1, pg_catalog.length(w.args)) OPERATOR(pg_catalog.=) w.args) AS holds, \
                                 w.is_here \
                            FROM w, pg_catalog.pg_class c \
                            JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) c.relowner \
                           WHERE (c.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(w.relation_name)::pg_catalog.oid \
                                  OR c.oid OPERATOR(pg_catalog.=) ANY ( \
                                     ARRAY(SELECT t.tgrelid",
        from_ours!(),
        " AND pg_catalog.substring(t.tgargs, 1, pg_catalog.length(w.args)) OPERATOR(pg_catalog.=) w.args))) \
                             AND (r.rolname OPERATOR(pg_catalog.=) w.relation_owner_name OR r.rolsuper \
                                  OR CASE WHEN w.home_system OPERATOR(pg_catalog.=) $2 \
                                            OR EXISTS (SELECT FROM pushy_internal.home h WHERE w.home_system OPERATOR(pg_catalog.=) ANY (h.former)) THEN r.oid OPERATOR(pg_catalog.=) w.owner \
                                          ELSE r.rolname OPERATOR(pg_catalog.=) w.owner_name END)) \
         SELECT COALESCE((SELECT t.oid FROM trusted t WHERE t.holds AND t.is_named), \
                         (SELECT pg_catalog.min(t.oid) FROM trusted t WHERE t.holds HAVING pg_catalog.count(*) OPERATOR(pg_catalog.=) 1), \
                         (SELECT t.oid FROM trusted t WHERE t.is_named AND NOT t.is_here))"
    ),
    &[BuiltinOid::INT4OID, BuiltinOid::INT8OID, BuiltinOid::OIDOID, BuiltinOid::OIDOID],
);

/// The table here of a watch that is not at home.
pub fn table_elsewhere(watch_id: i32) -> Option<Oid> {
    let here = Home::here();
    spi::connect(|spi| {
        let params = params![watch_id, here.system, here.database, here.extension];
        let found = spi.run_in_active_snapshot(&ELSEWHERE, params);
        found
            .row(0)
            .datum(1)
            .map(|oid| Oid::from(oid.value() as u32))
    })
}

sql_function!(pushy_watch_elsewhere_v1, |call| match call.opt_i32(0) {
    Some(watch_id) => identity::as_owner(|| Ok(table_elsewhere(watch_id))),
    None => Ok(None),
});

/// Makes this database the home of the watches whose home was `before`, which this database was until pg_upgrade.
pub fn adopt_from(before: &Home) -> Result<Vec<(String, Option<String>)>> {
    let mut watches = identity::as_owner(find::all)?;
    watches.retain(|watch| watch.home == *before);
    let mut answer = Vec::new();
    for watch in watches {
        // pg_upgrade brings every table: this one was dropped before.
        let is_lost = identity::as_owner(|| {
            let is_lost = !watch.has_table();
            Ok(is_lost && write::delete(&watch)?)
        })?;
        if !is_lost {
            answer.push(adopt(watch)?);
        }
    }
    Ok(answer)
}

/// Makes this database the home of all watches that came from elsewhere (`all`), or of the caller's; answers for each its
/// name and what still keeps it from publishing. With `all`, also triggers here whose watch is missing.
pub fn adopt_all(all: bool) -> Result<Vec<(String, Option<String>)>> {
    let watches = identity::as_owner(find::all)?;
    let caller = identity::current_user();
    let away = |watch: &WatchDefinition| !watch.is_home() && (all || watch.is_made_by(caller));
    let mut answer = Vec::new();
    for watch in watches.into_iter().filter(away) {
        let (paused, number) = (watch.paused, watch.watch_id);
        let (name, mut obstacle) = adopt(watch)?;
        if obstacle.is_none() {
            obstacle = queue_obstacle(number)?;
        }
        let paused = paused.then(|| "the watch is paused; see pushy.watch_resume".to_owned());
        answer.push((name, obstacle.or(paused)));
    }
    if !all {
        return Ok(answer);
    }
    for (relation, name) in orphans::all_named()? {
        let table = WatchedTable::look_up(relation)?;
        let reason = "its triggers are here without it; declare it again with pushy.watch, or end it with pushy.unwatch";
        answer.push((
            format!("{name} on {}", table.qualified),
            Some(reason.to_owned()),
        ));
    }
    Ok(answer)
}

/// What keeps a watch that has come home from adding jobs.
fn queue_obstacle(watch_id: i32) -> Result<Option<String>> {
    let watch = identity::as_owner(|| find::by_id(watch_id))?;
    let Some((held, owner)) = watch.and_then(|watch| Some((watch.queue?, watch.owner))) else {
        return Ok(None);
    };
    let obstacle = held.obstacle(owner, "pushy.watch")?;
    Ok(obstacle.map(|found| format!("it adds no jobs: {}", found.reason)))
}

fn named(watch: &WatchDefinition) -> String {
    format!("{} on {}", watch.name, watch.relation_name)
}

/// Makes this database the watch's home; answers its name, with that of its table here, and what hinders the move.
pub fn adopt(mut watch: WatchDefinition) -> Result<(String, Option<String>)> {
    let found = identity::as_owner(|| Ok(table_elsewhere(watch.watch_id)))?;
    let Some(relation) = found else {
        let reason = format!(
            "table {} does not exist, or has another owner than before; once it is there, run this again, or the extension's owner drops the watch: SELECT * FROM pushy.resume_after_restore(drop_rest => true)",
            watch.relation_name
        );
        return Ok((named(&watch), Some(reason)));
    };
    let table = WatchedTable::look_up(relation)?;
    watch.relation_name.clone_from(&table.qualified);
    let name = named(&watch);
    let Some(owner) = watch.owner_here() else {
        let reason = format!(
            "role \"{}\" does not exist; create it and run this again, or the table's owner ends the watch: SELECT pushy.unwatch({}, {})",
            watch.owner_name,
            quote_literal(&watch.relation_name),
            quote_literal(&watch.name)
        );
        return Ok((name, Some(reason)));
    };
    let watches = identity::as_owner(|| find::of_table(&table))?;
    if watches
        .iter()
        .any(|other| other.name == watch.name && other.is_home())
    {
        let reason = format!(
            "table {} has another watch of this name",
            watch.relation_name
        );
        return Ok((name, Some(reason)));
    }
    let triggers = identity::as_owner(|| Ok(triggers_there::carrying(&watch, table.oid)))?;
    if triggers.len() != watch.triggers.len() {
        let reason = format!(
            "table {} has {} of its {} triggers; declare it again with pushy.watch",
            watch.relation_name,
            triggers.len(),
            watch.triggers.len()
        );
        return Ok((name, Some(reason)));
    }
    let holds: Vec<Oid> = triggers
        .iter()
        .filter(|(_, holds)| *holds)
        .map(|(oid, _)| *oid)
        .collect();
    let is_holder = watch.expressions.is_some();
    watch.expressions = holds.first().copied();
    watch.triggers = triggers.into_iter().map(|(oid, _)| oid).collect();
    if holds.len() != usize::from(is_holder)
        || trigger_texts::of_watch(&watch)? != watch.trigger_texts
    {
        let reason = format!(
            "its triggers on table {} are not those that were declared, or their expressions are not; declare it again with pushy.watch",
            watch.relation_name
        );
        return Ok((name, Some(reason)));
    }
    watch.relation = relation;
    watch.relation_owner = identity::role_name(table.owner);
    watch.owner = owner;
    watch.owner_name = identity::role_name(owner);
    watch.print = trigger_texts::print(relation, &watch.triggers)?;
    if let Some(held) = &mut watch.queue {
        *held = identity::as_owner(|| held.come_from(watch.home.system))?;
    }
    watch.home = Home::here();
    watch.residence = Residence::Home;
    identity::as_owner(|| changes::bring_home(&watch))?;
    invalidation::send(relation);
    Ok((name, None))
}
