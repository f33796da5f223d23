//! ALTER TABLE of columns that a watch uses. The server refuses to change the type of a column that a trigger's
//! condition uses, so the triggers are made again around the statement.

use std::cell::RefCell;

use super::column_users::{target, users_of, User};
use super::renamed_column;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::params;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::utility::{self, Hooks, RelationName, Statement};
use crate::pg::{
    array, catalog_trigger, ereport, identity, invalidation, text, transaction, BuiltinOid, Oid,
};
use crate::shared::pending;
use crate::watch::changes;
use crate::watch::definition::WatchDefinition;
use crate::watch::find;
use crate::watch::table::WatchedTable;
use crate::watch::trigger_texts;
use crate::watch::triggers::{self, Expression, Wording};
use crate::watch::triggers_there;

static HOOKS: Hooks = Hooks {
    before,
    after,
    skips: utility::skip_none,
};

/// Once, while preloading.
pub fn init() {
    utility::install(&HOOKS);
}

/// A watch whose triggers are dropped until the running statement has changed the columns that they use.
#[derive(Clone)]
struct SuspendedWatch {
    watch: WatchDefinition,
    /// Triggers, also on partitions, that ALTER TABLE had disabled or enabled otherwise: table, trigger, pg_trigger.tgenabled.
    switched: Vec<(Oid, String, u8)>,
}

/// A statement that has dropped triggers, or runs inside one: what a USING expression calls may alter tables too.
struct Running {
    level: i32,
    open: Vec<SuspendedWatch>,
}

/// The innermost is the last, so each statement finds its own.
static RUNNING: PerProcess<RefCell<Vec<Running>>> = PerProcess::new(RefCell::new(Vec::new()));

/// A savepoint of this level is undone; 0: the transaction has ended.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn forget(level: i32) {
    RUNNING.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|running| running.level < level);
        }
    });
}

fn before(statement: &Statement) {
    if let Statement::AlterColumns {
        relation,
        retyped,
        dropped,
    } = statement
    {
        let read = |names: &[std::ffi::CString]| -> Vec<String> {
            names
                .iter()
                .map(|name| text::shown(name.to_bytes()))
                .collect()
        };
        raised(make_way(relation, &read(retyped), &read(dropped)).map(begin));
    }
}

fn after(statement: &Statement) {
    match statement {
        Statement::AlterColumns { .. } => raised(make_again()),
        Statement::RenameColumn { relation, from, to } => {
            let (from, to) = (text::shown(from.to_bytes()), text::shown(to.to_bytes()));
            raised(renamed_column::rename(relation, &from, &to));
        }
        _ => {}
    }
}

/// Without triggers too, inside a statement that has some: its end must not be taken for that one's.
fn begin(open: Vec<SuspendedWatch>) {
    RUNNING.with_borrow_mut(|all| {
        if all.is_empty() && open.is_empty() {
            return;
        }
        let level = transaction::nest_level();
        all.push(Running { level, open });
    });
}

/// Watches that the innermost statement makes again; they stay open until [`end`].
fn innermost() -> Vec<SuspendedWatch> {
    RUNNING.with_borrow(|all| all.last().map_or_else(Vec::new, |last| last.open.clone()))
}

fn end() {
    RUNNING.with_borrow_mut(Vec::pop);
}

/// Refuses to change or end a watch that a running ALTER TABLE makes again at its end: code of a user's runs inside the statement
/// (a USING expression, an event trigger), and what it declares would be undone without a word.
pub fn require_not_open(watch_id: i32) -> Result<()> {
    let open = RUNNING.with_borrow(|all| {
        let mut open = all.iter().flat_map(|running| &running.open);
        open.find(|open| open.watch.watch_id == watch_id)
            .map(|open| (open.watch.name.clone(), open.watch.relation_name.clone()))
    });
    let Some((name, table)) = open else {
        return Ok(());
    };
    Err(Error::new(
        SqlState::OBJECT_IN_USE,
        format!("watch \"{name}\" of table {table} cannot be changed while ALTER TABLE changes the type of a column that it uses"),
    )
    .detail("The statement makes the watch again at its end, as it was.")
    .hint("Call it before or after ALTER TABLE, not from a function or an event trigger that runs inside."))
}

fn raised(outcome: Result<()>) {
    if let Err(error) = outcome {
        ereport::raise(&error);
    }
}

/// Drops the triggers that would hinder the statement, or says what to do where they cannot be made again.
fn make_way(
    relation: &RelationName,
    retyped: &[String],
    dropped: &[String],
) -> Result<Vec<SuspendedWatch>> {
    let columns = [retyped, dropped].concat();
    if columns.is_empty() {
        return Ok(Vec::new());
    }
    let Some(oid) = target(relation) else {
        return Ok(Vec::new());
    };
    if users_of(oid, &columns)?.is_empty() {
        return Ok(Vec::new());
    }
    catalog_trigger::lock_exclusively(oid)?;
    let mut watches: Vec<WatchDefinition> = Vec::new();
    for user in users_of(oid, &columns)? {
        let table = WatchedTable::look_up(user.relation)?;
        if dropped.contains(&user.column) {
            return Err(in_use(&user, &table, "cannot be dropped").hint(way_out(
                &user.watch,
                &table,
                "Declare it anew without the column, or end it",
            )));
        }
        if watches
            .iter()
            .any(|watch| watch.triggers.contains(&user.trigger))
        {
            continue;
        }
        let of_table = identity::as_owner(|| find::of_table(&table))?;
        let watch = of_table
            .into_iter()
            .find(|watch| watch.is_home() && watch.triggers.contains(&user.trigger));
        match watch {
            Some(watch) if trigger_texts::are_unchanged(&watch)? => watches.push(watch),
            // What would be made again are another's words, with the rights of the watch's maker.
            Some(watch) => {
                return Err(in_use(
                    &user,
                    &table,
                    "cannot change its type: a trigger of the watch was dropped or replaced",
                )
                .hint(way_out(&watch.name, &table, "Declare it again, or end it")))
            }
            None => {
                return Err(in_use(
                    &user,
                    &table,
                    "cannot change its type: the watch came by a restore",
                )
                .hint(way_out(&user.watch, &table, "Declare it again, or end it")))
            }
        }
    }
    // Also asks for `forget`.
    pending::unsaid();
    let opened = watches.into_iter().map(|mut watch| {
        let switched = switched(&watch)?;
        take_texts(&mut watch)?;
        triggers_there::drop(&watch)?;
        Ok(SuspendedWatch { watch, switched })
    });
    opened.collect()
}

fn in_use(user: &User, table: &WatchedTable, what: &str) -> Error {
    Error::new(
        SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
        format!(
            "column \"{}\" of table {} is used by watch \"{}\" and {what}",
            user.column, table.qualified, user.watch
        ),
    )
}

fn way_out(watch: &str, table: &WatchedTable, first: &str) -> String {
    format!(
        "{first}: SELECT pushy.unwatch({}, {})",
        quote_literal(&table.qualified),
        quote_literal(watch)
    )
}

/// Expressions as the server has them, which have followed renames and mean the same in every session.
pub(super) fn take_texts(watch: &mut WatchDefinition) -> Result<()> {
    let texts = match watch.expressions {
        Some(trigger) => trigger_texts::texts(trigger)?,
        None => None,
    };
    let Some(texts) = texts else { return Ok(()) };
    let kept = |expression: Expression| texts.get(expression.index()).cloned();
    let parts = [
        (&mut watch.condition, Expression::Condition),
        (&mut watch.payload_expr, Expression::Payload),
        (&mut watch.args_expr, Expression::Args),
        (&mut watch.topic_expr, Expression::Topic),
    ];
    for (text, expression) in parts {
        if text.is_some() {
            *text = kept(expression).map(|kept| bare(expression, kept));
        }
    }
    Ok(())
}

/// Without what the watch itself has put around it.
fn bare(expression: Expression, text: String) -> String {
    let (start, end) = match expression {
        Expression::Condition => ("(", " IS TRUE)"),
        Expression::Args => ("to_jsonb(", ")"),
        Expression::Changed | Expression::Payload | Expression::Topic => ("", ""),
    };
    let inner = text
        .strip_prefix(start)
        .and_then(|text| text.strip_suffix(end));
    inner.map_or_else(|| text.clone(), str::to_owned)
}

static SWITCHED: Plan = Plan::new(
    "WITH RECURSIVE all_of AS ( \
        SELECT t.oid, t.tgrelid, t.tgname, t.tgenabled FROM pg_catalog.pg_trigger t WHERE t.oid OPERATOR(pg_catalog.=) ANY ($1) \
        UNION ALL \
        SELECT t.oid, t.tgrelid, t.tgname, t.tgenabled FROM all_of JOIN pg_catalog.pg_trigger t ON t.tgparentid OPERATOR(pg_catalog.=) all_of.oid) \
     SELECT a.tgrelid, a.tgname::pg_catalog.text, a.tgenabled \
       FROM all_of a \
      WHERE a.tgenabled OPERATOR(pg_catalog.<>) 'O'::pg_catalog.\"char\"",
    &[BuiltinOid::OIDARRAYOID],
);

fn switched(watch: &WatchDefinition) -> Result<Vec<(Oid, String, u8)>> {
    let triggers = array::of_oids(&watch.triggers);
    identity::as_owner(|| {
        spi::connect(|spi| {
            let found = spi.run(&SWITCHED, params![triggers]);
            let read = |row: spi::Row<'_>| Ok((row.oid(1), row.text(2)?, row.byte(3)));
            found.rows().map(read).collect()
        })
    })
}

/// Makes again the triggers that were dropped so that the statement could run.
fn make_again() -> Result<()> {
    let mut made = Vec::new();
    for SuspendedWatch {
        mut watch,
        switched,
    } in innermost()
    {
        let table = WatchedTable::look_up(watch.relation)?;
        triggers::create(&mut watch, &table, Wording::Servers).map_err(|error| {
            Error {
                message: format!(
                    "watch \"{}\" of table {} does not go with this change: {}",
                    watch.name, table.qualified, error.message
                ),
                ..error
            }
            .hint(way_out(
                &watch.name,
                &table,
                "End it first, and declare it anew afterwards",
            ))
        })?;
        for (table, trigger, state) in switched {
            catalog_trigger::switch(table, &trigger, state)?;
        }
        made.push(watch);
    }
    end();
    for watch in made {
        // What is written says what is new, because another session may have paused the watch meanwhile; its expressions stay as
        // they were written, only the triggers have the server's wording.
        if identity::as_owner(|| Ok(changes::attach(&watch)))? {
            invalidation::send(watch.relation);
        } else {
            // Its maker, who may touch the table no more, has ended it meanwhile.
            triggers_there::drop(&watch)?;
        }
    }
    Ok(())
}
