//! watch(): what a deploy script says of a table, as often as it likes.

use crate::channel::Channel;
use crate::errors::{Error, Result, SqlState};
use crate::obstacle;
use crate::pg::function::Answer;
use crate::pg::name_lock::{self, Named};
use crate::pg::object_lock::LockMode;
use crate::pg::{catalog_trigger, ereport, identifier, identity, invalidation, transaction};
use crate::queue::announce;
use crate::watch::altered;
use crate::watch::arguments;
use crate::watch::definition::{NamedBy, Residence, WatchDefinition};
use crate::watch::orphans;
use crate::watch::side_effects;
use crate::watch::table::WatchedTable;
use crate::watch::trigger_texts;
use crate::watch::triggers::{self, Wording};
use crate::watch::triggers_there;
use crate::watch::warnings;
use crate::watch::{find, lost, number};
use crate::{row, sql_function};

sql_function!(pushy_watch_v2, |call| {
    transaction::require_writable(c"pushy.watch()");
    let table = WatchedTable::look_up(arguments::relation(call)?)?;
    table.require_watchable()?;
    require_trigger_privilege(&table)?;
    let wanted = arguments::read(call, &table)?;
    let channel = wanted.channel.clone();
    let (has_channel, delivery) = (channel.is_some(), wanted.delivery);
    let is_changed = declare(wanted, &table, arguments::says_name(call))?;
    if is_changed && has_channel && !obstacle::is_emitted() {
        warnings::notice_no_relay(&table, delivery);
    }
    let ident = match channel {
        None => Answer::Null,
        Some(name) => row![Channel::exact(&name)?.ident()][0],
    };
    Result::Ok(ident)
});

fn require_trigger_privilege(table: &WatchedTable) -> Result<()> {
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

/// Declares it, and answers whether that has changed anything.
fn declare(mut wanted: WatchDefinition, table: &WatchedTable, is_named: bool) -> Result<bool> {
    let usual_name = (!is_named).then(|| wanted.name.clone());
    if let Some(existing) = find(&mut wanted, usual_name.as_deref(), &watches_of(table)?) {
        if is_as_wanted(existing, &wanted)? {
            return Ok(false);
        }
    }
    // Before the table's lock, because the channel's may be waited for: somebody may be closing it.
    if let Some(channel) = &wanted.channel {
        name_lock::take(Named::Channel, channel, LockMode::Shared)?;
    }
    // From here on nobody else declares a watch of this table, or renames it.
    catalog_trigger::lock_table(table.oid)?;
    let table = &WatchedTable::look_up(table.oid)?;
    wanted.relation_name.clone_from(&table.qualified);
    wanted.relation_owner = identity::role_name(table.owner);
    let mut renamed = None;
    let watches = watches_of(table)?;
    let existing = find(&mut wanted, usual_name.as_deref(), &watches);
    let is_new = existing.is_none();
    match existing {
        Some(existing) => {
            require_owner(existing, table)?;
            altered::require_not_open(existing.watch_id)?;
            wanted.watch_id = existing.watch_id;
            renamed = (existing.name != wanted.name).then(|| existing.name.clone());
            wanted.paused = existing.paused && existing.residence != Residence::Elsewhere;
            triggers_there::drop(existing)?;
        }
        None => wanted.watch_id = identity::as_owner(number::next_id)?,
    }
    orphans::drop(table.oid, &wanted.name)?;
    triggers::create(&mut wanted, table, Wording::Callers)?;
    identity::as_owner(|| {
        lost::forget_lost(false)?;
        if is_new {
            return wanted.write_new();
        }
        wanted.write()
    })?;
    invalidation::send(table.oid);
    announce::mark_present();
    if let Some(existing) = existing {
        side_effects::notice_lost(existing, &wanted, renamed.is_some());
    }
    side_effects::notice_twin(&wanted, existing, &watches);
    side_effects::notice_namesake(&wanted, existing)?;
    warnings::notice_never_merged(&wanted);
    warnings::notice_other_arguments(&wanted);
    if let Some(before) = renamed {
        ereport::notice(
            &Error::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!(
                    "watch \"{before}\" of table {} is called \"{}\" now, as its {} is",
                    table.qualified,
                    wanted.name,
                    if wanted.named_by == Some(NamedBy::Queue) { "queue" } else { "channel" }
                ),
            )
            .hint(if wanted.named_by == Some(NamedBy::Queue) {
                "The name of this watch is its queue's, which was renamed."
            } else {
                "Name and channel of this watch are its table's. What listens to the old channel hears no more of it."
            }),
        );
    }
    warnings::warn(&wanted, table)?;
    Ok(true)
}

fn watches_of(table: &WatchedTable) -> Result<Vec<WatchDefinition>> {
    identity::as_owner(|| find::of_table(table))
}

/// The existing watch that the caller means. A name that the caller did not give gives way where a watch of that name publishes
/// somewhere else.
fn find<'a>(
    wanted: &mut WatchDefinition,
    usual_name: Option<&str>,
    watches: &'a [WatchDefinition],
) -> Option<&'a WatchDefinition> {
    if let Some(usual_name) = usual_name {
        wanted.name = free_name(wanted, usual_name, watches);
    }
    let by_name = watches.iter().find(|existing| existing.name == wanted.name);
    // Or the watch that was named by the table, or by its queue, which may have been renamed since.
    let by_source = || {
        let is_it = |existing: &&WatchDefinition| {
            existing.named_by == wanted.named_by
                && match wanted.named_by {
                    Some(NamedBy::Table) => true,
                    Some(NamedBy::Queue) => existing.feeds_same_queue(wanted),
                    None => false,
                }
        };
        watches.iter().find(is_it)
    };
    by_name.or_else(by_source)
}

/// The channel's name or the queue's; where a watch of that name publishes somewhere else, one that says which of the two it is.
fn free_name(wanted: &WatchDefinition, usual_name: &str, watches: &[WatchDefinition]) -> String {
    let other_name = format!(
        "{usual_name} ({})",
        if wanted.channel.is_some() {
            "channel"
        } else {
            "queue"
        }
    );
    let named = |name: &str| watches.iter().find(|existing| existing.name == name);
    let is_taken = match named(usual_name) {
        Some(existing) => !existing.has_same_target(wanted),
        None => named(&other_name).is_some_and(|existing| existing.has_same_target(wanted)),
    };
    if is_taken {
        other_name
    } else {
        usual_name.to_owned()
    }
}

/// A deploy that changes nothing takes no lock.
fn is_as_wanted(existing: &WatchDefinition, wanted: &WatchDefinition) -> Result<bool> {
    let same = WatchDefinition {
        watch_id: existing.watch_id,
        token: existing.token.clone(),
        relation_owner: existing.relation_owner.clone(),
        relation_name: existing.relation_name.clone(),
        paused: existing.paused,
        triggers: existing.triggers.clone(),
        expressions: existing.expressions,
        trigger_texts: existing.trigger_texts.clone(),
        print: existing.print.clone(),
        ..wanted.clone()
    };
    Ok(same == *existing
        && existing.is_home()
        && trigger_texts::are_unchanged(existing)?
        && !orphans::names_of(existing.relation)?.contains(&existing.name))
}

/// Who may change or end a watch: its maker, and who owns the table.
pub fn require_owner(watch: &WatchDefinition, table: &WatchedTable) -> Result<()> {
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
    .hint(match watch.owner_here() {
        Some(maker) => format!("It was made by role \"{}\".", identity::role_name(maker)),
        None => "The role that made it is gone.".to_owned(),
    }))
}
