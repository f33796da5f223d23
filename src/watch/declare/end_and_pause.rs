//! unwatch, watch_pause, watch_resume: for a watch's maker and the table's owner.

use crate::errors::{Error, Result, SqlState};
use crate::pg::function::Call;
use crate::pg::{catalog_trigger, ereport, identifier, identity, invalidation, text, transaction};
use crate::sql_function;
use crate::watch::arguments;
use crate::watch::declare::watch::require_owner;
use crate::watch::definition::WatchDefinition;
use crate::watch::orphans;
use crate::watch::restore;
use crate::watch::table::WatchedTable;
use crate::watch::trigger_texts;
use crate::watch::triggers_there;
use crate::watch::{find, write};

sql_function!(pushy_unwatch_v1, |call| {
    transaction::require_writable(c"pushy.unwatch()");
    unwatch(call)
});

fn unwatch(call: Call) -> Result<i32> {
    let ending = Ending::named(call)?;
    // Every role may ask, and who has no right to end a watch here must not come to hold a lock of this table.
    if ending.is_empty() {
        return Ok(0);
    }
    ending.require_owners()?;
    if !ending.may_touch_table() {
        return ending.leave();
    }
    catalog_trigger::lock_table(ending.table.oid)?;
    // Somebody may have declared one anew before the lock was ours.
    Ending::named(call)?.end()
}

/// What unwatch is about: watches, and triggers of watches that are not here.
struct Ending {
    table: WatchedTable,
    watches: Vec<WatchDefinition>,
    orphans: Vec<String>,
}

impl Ending {
    fn named(call: Call) -> Result<Self> {
        let table = WatchedTable::look_up(arguments::relation(call)?)?;
        let name = call.opt_text(1)?;
        let mut orphans = orphans::names_of(table.oid)?;
        orphans.retain(|orphan| name.as_ref().is_none_or(|name| name == orphan));
        let watches = if orphans.is_empty() {
            named(call)?.1
        } else {
            let mut watches = identity::as_owner(|| find::of_table(&table))?;
            watches.retain(|watch| name.as_ref().is_none_or(|name| *name == watch.name));
            watches
        };
        Ok(Self {
            table,
            watches,
            orphans,
        })
    }

    fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.orphans.is_empty()
    }

    fn require_owners(&self) -> Result<()> {
        if !self.orphans.is_empty() {
            require_table_owner(&self.table)?;
        }
        require_owners(&self.table, &self.watches)
    }

    /// Whether the caller may lock the table, for which having made a watch once is no right.
    fn may_touch_table(&self) -> bool {
        catalog_trigger::may_create_on(self.table.oid)
            || identity::has_rights_of(identity::current_user(), self.table.owner)
    }

    /// Ends watches without a lock on the table: their triggers stay, and publish nothing. Answers how many there were.
    fn leave(self) -> Result<i32> {
        let mut left = Vec::new();
        for watch in &self.watches {
            // One that was declared anew meanwhile, by the table's owner say, is another's business.
            if identity::as_owner(|| write::delete(watch))? {
                left.push(identifier::quoted(&watch.name));
            }
        }
        if left.is_empty() {
            return Ok(0);
        }
        invalidation::send(self.table.oid);
        ereport::notice(
            &Error::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!(
                    "triggers of watch {} stay on table {}, and publish nothing",
                    left.join(", "),
                    self.table.qualified
                ),
            )
            .hint("You may make no triggers on it any more, so nobody waits for you there. Its owner removes them with pushy.unwatch."),
        );
        Ok(left.len() as i32)
    }

    /// Answers how many there were, by name.
    fn end(self) -> Result<i32> {
        self.require_owners()?;
        let ended = each(&self.table, &self.watches, |watch| {
            triggers_there::drop(watch)?;
            identity::as_owner(|| write::delete(watch).map(|_| ()))
        })?;
        let mut more = 0;
        for name in &self.orphans {
            orphans::drop(self.table.oid, name)?;
            more += i32::from(self.watches.iter().all(|watch| watch.name != *name));
        }
        Ok(ended + more)
    }
}

/// Nobody knows who made a watch that is not here.
fn require_table_owner(table: &WatchedTable) -> Result<()> {
    if identity::has_rights_of(identity::current_user(), table.owner) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!("must be owner of table {}", table.qualified),
    )
    .hint("It has triggers of a watch that is not here; who made that is not known."))
}

sql_function!(pushy_watch_pause_v1, |call| {
    transaction::require_writable(c"pushy.watch_pause()");
    let (table, watches) = named(call)?;
    each(&table, &watches, |watch| set_paused(watch, true))
});

sql_function!(pushy_watch_resume_v1, |call| {
    transaction::require_writable(c"pushy.watch_resume()");
    let (table, watches) = named(call)?;
    each(&table, &watches, |watch| {
        if !watch.is_home() {
            if let (_, Some(obstacle)) = restore::adopt(watch.clone())? {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "watch \"{}\" came here by a restore or a copy: {obstacle}",
                        watch.name
                    ),
                )
                .hint("Declare it again with pushy.watch."));
            }
        }
        set_paused(watch, false)?;
        say_if_broken(watch)
    })
});

/// Resumed, and silent all the same.
fn say_if_broken(watch: &WatchDefinition) -> Result<()> {
    if !watch.is_home() {
        return Ok(());
    }
    let why = if trigger_texts::are_unchanged(watch)? {
        let queue = watch.queue.as_ref();
        let obstacle = queue.map(|queue| queue.obstacle(watch.owner, "pushy.watch"));
        match obstacle.transpose()?.flatten() {
            Some(obstacle) => format!("it adds no jobs: {}", obstacle.reason),
            None => return Ok(()),
        }
    } else {
        "it publishes nothing, because it has lost a trigger or somebody has replaced one"
            .to_owned()
    };
    ereport::warning(
        &Error::new(
            SqlState::WARNING,
            format!(
                "watch \"{}\" of table {} was resumed, but {why}",
                watch.name, watch.relation_name
            ),
        )
        .hint("Column fix of pushy.watches says what to do."),
    );
    Ok(())
}

/// The table and its watches that a call is about: one by name, or all.
fn named(call: Call) -> Result<(WatchedTable, Vec<WatchDefinition>)> {
    let table = WatchedTable::look_up(arguments::relation(call)?)?;
    let mut watches = identity::as_owner(|| find::of_table(&table))?;
    if let Some(name) = call.opt_text(1)? {
        let names: Vec<String> = watches.iter().map(|watch| watch.name.clone()).collect();
        watches.retain(|watch| watch.name == name);
        if watches.is_empty() {
            return Err(no_such_watch(&table, &name, &names));
        }
    }
    Ok((table, watches))
}

fn no_such_watch(table: &WatchedTable, name: &str, names: &[String]) -> Error {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let hint = if names.is_empty() {
        "It has none; SELECT * FROM pushy.watches lists those you may see.".to_owned()
    } else {
        format!("Its watches are: {}.", text::listed(&names))
    };
    Error::new(
        SqlState::UNDEFINED_OBJECT,
        format!("table {} has no watch \"{name}\"", table.qualified),
    )
    .hint(hint)
}

/// Does something with each, and answers how many there were.
fn each(
    table: &WatchedTable,
    watches: &[WatchDefinition],
    work: impl Fn(&WatchDefinition) -> Result<()>,
) -> Result<i32> {
    require_owners(table, watches)?;
    for watch in watches {
        work(watch)?;
    }
    if !watches.is_empty() {
        invalidation::send(table.oid);
    }
    Ok(watches.len() as i32)
}

fn require_owners(table: &WatchedTable, watches: &[WatchDefinition]) -> Result<()> {
    watches
        .iter()
        .try_for_each(|watch| require_owner(watch, table))
}

fn set_paused(watch: &WatchDefinition, paused: bool) -> Result<()> {
    identity::as_owner(|| write::set_paused(watch, paused))
}
