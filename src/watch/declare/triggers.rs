//! The triggers of a watch: their names, their statements, making and dropping them.
//!
//! A trigger per event, and one that never fires: its condition is where the server keeps the watch's
//! expressions (see crate::pg::expression).

use super::expression_faults::explained;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::expression::Unplanned;
use crate::pg::identity::Author;
use crate::pg::trigger::Op;
use crate::pg::{catalog_trigger, identifier, identity, text, BuiltinOid, Oid};
use crate::watch::definition::{Level, WatchDefinition};
use crate::watch::number;
use crate::watch::side_effects;
use crate::watch::table::WatchedTable;
use crate::watch::trigger_texts;

/// The expressions of a watch, in the order in which its trigger holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expression {
    /// One of the columns differs; boolean.
    Changed,
    /// The condition; boolean.
    Condition,
    /// The payload; text.
    Payload,
    /// The arguments of a job; jsonb.
    Args,
    /// The topic; text. Only of a watch that has one: the triggers of others are as they were before there were topics.
    Topic,
}

impl Expression {
    /// What each of a watch's answers, in this order.
    pub fn types_of(watch: &WatchDefinition) -> &'static [BuiltinOid] {
        const ALL: &[BuiltinOid] = &[
            BuiltinOid::BOOLOID,
            BuiltinOid::BOOLOID,
            BuiltinOid::TEXTOID,
            BuiltinOid::JSONBOID,
            BuiltinOid::TEXTOID,
        ];
        match watch.topic_expr {
            Some(_) => ALL,
            None => &ALL[..Self::Topic.index()],
        }
    }

    pub const fn index(self) -> usize {
        self as usize
    }
}

/// How the expressions are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wording {
    /// As the caller wrote them, who declares the watch: names are looked up along its search path.
    Callers,
    /// As the server writes what it had kept: names say their schemas.
    Servers,
}

/// Makes the triggers; their numbers go into the definition.
pub fn create(watch: &mut WatchDefinition, table: &WatchedTable, wording: Wording) -> Result<()> {
    watch.token = identity::as_owner(number::new_token)?;
    let maker = Maker {
        base: base_name(watch),
        arguments: [&watch.token, &watch.name]
            .map(|argument| quote_literal(argument))
            .join(", "),
        table,
        wording,
        author: watch.author(),
    };
    let changed = match &watch.columns {
        Some(columns) => Some(table.columns_changed(columns)?),
        None => None,
    };
    let expressions = make_expressions(&maker, watch, changed.as_deref())?;
    if let (Wording::Callers, Some(made)) = (wording, &expressions) {
        let condition = Expression::Condition.index();
        let uses_old = made.unplanned.uses_old(condition);
        side_effects::notice_blind(watch, uses_old, made.unplanned.uses_new(condition));
    }
    watch.expressions = expressions.as_ref().map(|made| made.trigger);
    watch.triggers = Vec::new();
    for op in fired_by(watch, table) {
        let native = expressions.as_ref().and_then(|made| {
            native_condition(watch, table, op, &made.unplanned, changed.as_deref())
        });
        let row = op != Op::Truncate;
        watch
            .triggers
            .push(maker.make(op.as_str(), op, row, native.as_deref())?);
        if watch.level == Level::Statement && row {
            let name = format!("{}_end", op.as_str());
            watch.triggers.push(maker.make(&name, op, false, None)?);
        }
    }
    watch.triggers.extend(watch.expressions);
    watch.trigger_texts = trigger_texts::of_watch(watch)?;
    watch.print = trigger_texts::print(watch.relation, &watch.triggers)?;
    Ok(())
}

/// The kinds of change that must fire. A row that an update moves to another partition fires as a delete and
/// an insert: with all three it can be seen what it was.
fn fired_by(watch: &WatchDefinition, table: &WatchedTable) -> Vec<Op> {
    let rows = [Op::Insert, Op::Update, Op::Delete];
    let of_rows = |op: &Op| *op != Op::Truncate;
    let mut ops: Vec<Op> = watch.events.clone();
    if table.is_partitioned() && ops.iter().any(of_rows) {
        ops.retain(|op| !of_rows(op));
        ops.splice(0..0, rows);
    }
    ops
}

struct Made {
    trigger: Oid,
    unplanned: Unplanned,
}

fn make_expressions(
    maker: &Maker<'_>,
    watch: &WatchDefinition,
    changed: Option<&str>,
) -> Result<Option<Made>> {
    if changed.is_none() && watch.expressions_given().all(|(_, given)| given.is_none()) {
        return Ok(None);
    }
    let or_null = |expression: Option<&str>, cast: &str| match expression {
        Some(expression) => format!("({expression}\n){cast}"),
        None => "NULL".to_owned(),
    };
    let args = watch
        .args_expr
        .as_deref()
        .map(|args| format!("pg_catalog.to_jsonb(({args}\n))"));
    let mut row = vec![
        or_null(changed, ""),
        or_null(watch.condition.as_deref(), " IS TRUE"),
        or_null(watch.payload_expr.as_deref(), "::pg_catalog.text"),
        or_null(args.as_deref(), ""),
    ];
    if let Some(topic) = &watch.topic_expr {
        row.push(or_null(Some(topic), "::pg_catalog.text"));
    }
    let condition = format!("false AND ROW({}) IS NULL", row.join(", "));
    let made = maker.make("expressions", Op::Update, true, Some(&condition));
    let trigger = made.map_err(|error| explained(error, watch))?;
    let condition = trigger_texts::condition_of(trigger)?.unwrap_or_default();
    let types = Expression::types_of(watch);
    let read = || Unplanned::of_condition(watch.relation, &condition, types);
    let unplanned = identity::as_author(maker.author, read)
        .map_err(|error| explained(error, watch))?
        .ok_or_else(|| {
            Error::new(
                SqlState::INTERNAL_ERROR,
                "the server keeps the watch's expressions in another form than expected",
            )
            .hint("This is a bug: please report it with the version of the server.")
        })?;
    Ok(Some(Made { trigger, unplanned }))
}

/// The condition that the server itself can check before it queues a firing: only terms that cannot fail, because a watch
/// never fails a write, and only about rows that the event has.
fn native_condition(
    watch: &WatchDefinition,
    table: &WatchedTable,
    op: Op,
    unplanned: &Unplanned,
    changed: Option<&str>,
) -> Option<String> {
    // The halves of a moved row must both fire.
    let moved_half = table.is_partitioned() && op != Op::Update;
    if op == Op::Truncate || moved_half {
        return None;
    }
    let mut terms = Vec::new();
    if let (Op::Update, Some(changed), Some(columns)) = (op, changed, &watch.columns) {
        // From a trigger without a condition the trigger function knows that nobody has compared the columns.
        if !table.compares_safely(columns) {
            return None;
        }
        terms.push(format!("({changed})"));
    }
    if let Some(condition) = &watch.condition {
        let index = Expression::Condition.index();
        let has_rows = match op {
            Op::Insert => !unplanned.uses_old(index),
            Op::Delete => !unplanned.uses_new(index),
            _ => true,
        };
        if has_rows && unplanned.is_safe(index) {
            terms.push(format!("({condition}\n)"));
        }
    }
    (!terms.is_empty()).then(|| terms.join(" AND "))
}

struct Maker<'a> {
    base: String,
    /// Its token and its name.
    arguments: String,
    table: &'a WatchedTable,
    wording: Wording,
    author: Author,
}

impl Maker<'_> {
    fn make(&self, suffix: &str, op: Op, row: bool, condition: Option<&str>) -> Result<Oid> {
        let name = format!("{}_{suffix}", self.base);
        let when = condition.map_or_else(String::new, |condition| format!(" WHEN ({condition})"));
        let create = match self.wording {
            Wording::Callers => catalog_trigger::create,
            Wording::Servers => catalog_trigger::create_again,
        };
        let statement = format!(
            "CREATE TRIGGER {} AFTER {} ON {} FOR EACH {}{when} EXECUTE FUNCTION pushy.{}({})",
            identifier::quoted(&name),
            op.as_str(),
            self.table.qualified,
            if row { "ROW" } else { "STATEMENT" },
            if row { "watch_row" } else { "watch_statement" },
            self.arguments,
        );
        create(self.table.oid, &statement, self.author).map_err(|error| match error.sqlstate {
            // The server copies it to the partitions.
            SqlState::DUPLICATE_OBJECT if self.table.is_partitioned() => error.hint(
                "A partition has a watch of this name, which a watch of the whole table covers: end the partition's with pushy.unwatch, or pass another name => ….",
            ),
            _ => error,
        })?;
        catalog_trigger::find(self.table.oid, &name).ok_or_else(|| {
            Error::new(
                SqlState::INTERNAL_ERROR,
                format!("trigger \"{name}\" was made and is not there"),
            )
        })
    }
}

/// `pushy_<watch>`, cut where suffixes would not fit, and then with the number to keep it apart.
fn base_name(watch: &WatchDefinition) -> String {
    const LONGEST_SUFFIX: usize = "_expressions".len();
    let whole = format!("pushy_{}", watch.name);
    let most = identifier::LIMIT - LONGEST_SUFFIX;
    if text::encode(&whole).len() <= most {
        return whole;
    }
    let number = format!("_{}", watch.watch_id);
    let mut cut = whole;
    while text::encode(&cut).len() > most - number.len() {
        cut.pop();
    }
    cut + &number
}
