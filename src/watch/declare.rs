//! watch(): what a deploy script says of a table, as often as it likes.

use super::arguments;
use super::definition::{self, Definition, Payload, Stands};
use super::orphans;
use super::table::Table;
use super::triggers::{self, Wording};
use crate::channel::Channel;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::function::Answer;
use crate::pg::{catalog_trigger, ereport, identifier, identity, invalidation, transaction};
use crate::queue::publish;
use crate::{row, sql_function};

sql_function!(pushy_watch, |call| {
    transaction::require_writable(c"pushy.watch()");
    let table = Table::look_up(arguments::relation(call)?)?;
    table.require_watchable()?;
    require_trigger_privilege(&table)?;
    let wanted = arguments::read(call, &table)?;
    let channel = wanted.channel.clone();
    declare(wanted, &table)?;
    let ident = match channel {
        None => Answer::Null,
        Some(name) => row![Channel::exact(&name)?.ident()][0],
    };
    Result::Ok(ident)
});

fn require_trigger_privilege(table: &Table) -> Result<()> {
    if catalog_trigger::may_create_on(table.oid) {
        return Ok(());
    }
    let caller = identifier::quoted(&identity::role_name(identity::current_user()));
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("permission denied for table {}", table.qualified),
    )
    .detail("A watch is a set of triggers on the table.")
    .hint(format!(
        "The table's owner can run: GRANT TRIGGER ON {} TO {caller}",
        table.qualified
    )))
}

fn declare(mut wanted: Definition, table: &Table) -> Result<()> {
    if let Some(existing) = find(&wanted, table)? {
        if is_as_wanted(&existing, &wanted)? {
            return Ok(());
        }
    }
    // From here on nobody else declares a watch of this table, or renames it.
    catalog_trigger::lock_table(table.oid);
    let table = &Table::look_up(table.oid)?;
    wanted.relation_name.clone_from(&table.qualified);
    wanted.relation_owner = identity::role_name(table.owner);
    let mut renamed = None;
    match find(&wanted, table)? {
        Some(existing) => {
            require_owner(&existing, table)?;
            wanted.watch_id = existing.watch_id;
            renamed = (existing.name != wanted.name).then(|| existing.name.clone());
            wanted.paused = existing.paused && existing.stands != Stands::Elsewhere;
            triggers::drop(&existing)?;
        }
        None => wanted.watch_id = identity::as_owner(|| Ok(definition::next_id()))?,
    }
    orphans::drop(table.oid, &wanted.name)?;
    triggers::create(&mut wanted, table, Wording::Callers)?;
    identity::as_owner(|| {
        definition::forget_lost();
        wanted.write();
        Ok(())
    })?;
    invalidation::tell_changed(table.oid);
    publish::mark_present();
    if let Some(before) = renamed {
        ereport::notice(
            &Error::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!(
                    "watch \"{before}\" of table {} is called \"{}\" now, as its channel is",
                    table.qualified, wanted.name
                ),
            )
            .hint("Name and channel of this watch are its table's. What listens to the old channel hears no more of it."),
        );
    }
    warn(&wanted, table);
    Ok(())
}

fn find(wanted: &Definition, table: &Table) -> Result<Option<Definition>> {
    let watches = identity::as_owner(|| definition::of_table(table))?;
    let by_name = watches
        .iter()
        .position(|existing| existing.name == wanted.name);
    // The table was renamed since, and its name was the watch's.
    let by_table = || {
        let is_it = |existing: &Definition| existing.named_by_table && wanted.named_by_table;
        watches.iter().position(is_it)
    };
    let found = by_name.or_else(by_table);
    Ok(found.and_then(|at| watches.into_iter().nth(at)))
}

/// A deploy that changes nothing takes no lock.
fn is_as_wanted(existing: &Definition, wanted: &Definition) -> Result<bool> {
    let same = Definition {
        watch_id: existing.watch_id,
        token: existing.token.clone(),
        relation_owner: existing.relation_owner.clone(),
        relation_name: existing.relation_name.clone(),
        paused: existing.paused,
        triggers: existing.triggers.clone(),
        expressions: existing.expressions,
        ..wanted.clone()
    };
    Ok(same == *existing
        && existing.is_home()
        && triggers::existing(existing)?.len() == existing.triggers.len()
        && !orphans::names_of(existing.relation)?.contains(&existing.name))
}

/// Who may change or end a watch: its maker, and who owns the table.
pub fn require_owner(watch: &Definition, table: &Table) -> Result<()> {
    let caller = identity::current_user();
    if watch.is_made_by(caller) || identity::has_rights_of(caller, table.owner) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "must be owner of watch \"{}\" or of table {}",
            watch.name, table.qualified
        ),
    )
    .hint(format!("It was made by role \"{}\".", watch.owner_name)))
}

/// What people would be surprised by.
fn warn(watch: &Definition, table: &Table) {
    let warn = |message: String, hint: &str| {
        ereport::warning(&Error::new(SqlState::WARNING, message).hint(hint));
    };
    let table_name = &table.qualified;
    if watch.channel.is_some()
        && table.has_row_security()
        && matches!(
            watch.payload,
            Payload::Row | Payload::Diff | Payload::Expression
        )
    {
        warn(
            format!("notices of {table_name} show rows that row security hides"),
            "Every role of the database may LISTEN: payload => 'key' tells which row, and who may see it reads it.",
        );
    }
    if table.has_children() {
        warn(
            format!("tables that inherit from {table_name} are not watched"),
            "Their rows fire their own triggers: watch each of them, perhaps with the same channel.",
        );
    }
    if watch.payload == Payload::Key && watch.channel.is_some() && !table.has_key() {
        warn(
            format!("table {table_name} has no key: its notices do not say which row"),
            &format!(
                "Give it a primary key or a replica identity, or watch it with payload => 'row'. {}",
                silence(watch)
            ),
        );
    }
}

fn silence(watch: &Definition) -> String {
    format!(
        "To end the watch: SELECT pushy.unwatch({}, {})",
        quote_literal(&watch.relation_name),
        quote_literal(&watch.name)
    )
}
