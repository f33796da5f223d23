//! What a caller of watch() wants, from the arguments to a definition.

use crate::channel::Channel;
use crate::errors::{Error, Result, SqlState};
use crate::pg::function::Call;
use crate::pg::home::Home;
use crate::pg::trigger::Op;
use crate::pg::{array, expression, identifier, identity, text, Oid};
use crate::queue::reference::QueueReference;
use crate::watch::definition::{Delivery, Level, NamedBy, Payload, Residence, WatchDefinition};
use crate::watch::table::WatchedTable;

/// Bytes of an expression: it is kept, and views read it again and again.
const MOST_BYTES: usize = 16_384;
/// As many columns as a table has at most (MaxHeapAttributeNumber).
const MOST_COLUMNS: usize = 1_600;

const CHANNEL: usize = 1;
const EVENTS: usize = 2;
const COLUMNS: usize = 3;
const CONDITION: usize = 4;
const PAYLOAD: usize = 5;
const PAYLOAD_EXPR: usize = 6;
const LEVEL: usize = 7;
const DELIVERY: usize = 8;
const QUEUE: usize = 9;
const ARGS_EXPR: usize = 10;
const MERGE: usize = 11;
const NAME: usize = 12;
const TOPIC_EXPR: usize = 13;

/// A definition without number and triggers, checked as far as that is possible before the server sees its
/// expressions.
pub fn read(call: Call, table: &WatchedTable) -> Result<WatchDefinition> {
    let queue_name = call.opt_text(QUEUE)?;
    if let Some(queue) = &queue_name {
        identifier::require_name("queue", queue)?;
    }
    let channel = read_channel(call, table, queue_name.as_deref())?;
    let caller = identity::current_user();
    let payload_expr = expression_argument(call, "payload_expr", PAYLOAD_EXPR)?;
    let mut definition = WatchDefinition {
        watch_id: 0,
        token: String::new(),
        relation: table.oid,
        relation_name: table.qualified.clone(),
        relation_owner: identity::role_name(table.owner),
        name: read_name(call, channel.as_ref(), queue_name.as_deref())?,
        named_by: named_by(call, queue_name.is_some()),
        owner: caller,
        owner_name: identity::role_name(caller),
        channel: channel.map(Channel::into_bytes),
        events: read_events(call)?,
        columns: read_columns(call)?,
        condition: expression_argument(call, "condition", CONDITION)?,
        payload: read_payload(call, payload_expr.is_some())?,
        payload_expr,
        level: word(call, "level", LEVEL, Level::parse, Level::WORDS)?.unwrap_or(Level::Row),
        delivery: word(call, "delivery", DELIVERY, Delivery::parse, Delivery::WORDS)?,
        queue: None,
        args_expr: expression_argument(call, "args_expr", ARGS_EXPR)?,
        topic_expr: expression_argument(call, "topic_expr", TOPIC_EXPR)?,
        merge: call.opt_bool(MERGE).unwrap_or(false),
        paused: false,
        home: Home::here(),
        residence: Residence::Home,
        triggers: Vec::new(),
        expressions: None,
        trigger_texts: Vec::new(),
        print: String::new(),
    };
    check(&definition, queue_name.is_some())?;
    if let Some(queue) = &queue_name {
        definition.queue = Some(QueueReference::choose(queue, caller)?);
    }
    Ok(definition)
}

fn named_by(call: Call, has_queue: bool) -> Option<NamedBy> {
    let is_left = !says_name(call) && call.datum(CHANNEL).is_none();
    is_left.then_some(if has_queue {
        NamedBy::Queue
    } else {
        NamedBy::Table
    })
}

/// Whether the caller has named the watch.
pub fn says_name(call: Call) -> bool {
    call.datum(NAME).is_some()
}

fn read_channel(call: Call, table: &WatchedTable, queue: Option<&str>) -> Result<Option<Channel>> {
    let channel = match (call.opt_bytes(CHANNEL), queue) {
        (Some(identifier), _) => Channel::declared(&identifier).map(Some),
        (None, Some(_)) => Ok(None),
        (None, None) => Channel::exact(&table.raw_name)?.checked().map(Some),
    }?;
    channel.map(Channel::not_ours).transpose()
}

/// The channel's name, or the queue's, unless something else is said.
fn read_name(call: Call, channel: Option<&Channel>, queue: Option<&str>) -> Result<String> {
    let name = match call.opt_text(NAME)? {
        Some(name) => name,
        None => channel.map_or_else(
            || queue.unwrap_or_default().to_owned(),
            |channel| text::shown(channel.as_bytes()),
        ),
    };
    // What was made a name of has its own rules, which its own argument says.
    if says_name(call) {
        identifier::require_name("name", &name)?;
    }
    Ok(name)
}

fn read_events(call: Call) -> Result<Vec<Op>> {
    let Some(given) = call.datum(EVENTS) else {
        return Ok(vec![Op::Insert, Op::Update, Op::Delete]);
    };
    let refused = |word: &str| Error::out_of_range("events", word, &listed(Op::WORDS));
    let mut events = Vec::new();
    for (at, word) in array::texts(given)?.enumerate() {
        let word = word.ok_or_else(|| Error::null_argument(&format!("events[{}]", at + 1)))?;
        events.push(Op::parse(&word).ok_or_else(|| refused(&format!("\"{word}\"")))?);
    }
    if events.is_empty() {
        return Err(refused("an empty array"));
    }
    const ORDER: [Op; 4] = [Op::Insert, Op::Update, Op::Delete, Op::Truncate];
    Ok(ORDER
        .into_iter()
        .filter(|event| events.contains(event))
        .collect())
}

fn read_columns(call: Call) -> Result<Option<Vec<String>>> {
    let Some(given) = call.datum(COLUMNS) else {
        return Ok(None);
    };
    let names = array::names(given)
        .enumerate()
        .map(|(at, name)| name.ok_or_else(|| Error::null_argument(&format!("columns[{}]", at + 1))))
        .collect::<Result<Vec<_>>>()?;
    let refused =
        |what: &str| Error::out_of_range("columns", what, "names of columns; NULL means all");
    if names.is_empty() {
        return Err(refused("an empty array"));
    }
    if names.len() > MOST_COLUMNS {
        return Err(refused(&format!("an array of {} names", names.len())));
    }
    Ok(Some(names))
}

fn read_payload(call: Call, has_expression: bool) -> Result<Payload> {
    // 'expression' is what payload_expr makes of it, and not a word for callers.
    let words: Vec<&str> = Payload::WORDS
        .iter()
        .copied()
        .filter(|word| *word != Payload::Expression.as_str())
        .collect();
    let payload = word(call, "payload", PAYLOAD, Payload::parse, &words)?.unwrap_or(Payload::Key);
    match payload {
        Payload::Expression => {
            Err(
                Error::out_of_range("payload", "\"expression\"", &listed(&words))
                    .hint("Pass the expression as payload_expr."),
            )
        }
        Payload::Key if has_expression => Ok(Payload::Expression),
        other if has_expression => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "payload => '{}' and payload_expr are both given",
                other.as_str()
            ),
        )
        .hint("Leave payload out: payload_expr is the whole payload.")),
        other => Ok(other),
    }
}

fn word<T>(
    call: Call,
    name: &str,
    index: usize,
    parse: impl Fn(&str) -> Option<T>,
    words: &[&str],
) -> Result<Option<T>> {
    let Some(word) = call.opt_text(index)? else {
        return Ok(None);
    };
    parse(&word)
        .map(Some)
        .ok_or_else(|| Error::out_of_range(name, format!("\"{word}\""), &listed(words)))
}

fn listed(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn expression_argument(call: Call, name: &str, index: usize) -> Result<Option<String>> {
    let text = call.opt_text(index)?;
    if let Some(text) = &text {
        if text.len() > MOST_BYTES {
            return Err(Error::out_of_range(
                name,
                format!("an expression of {} bytes", text.len()),
                &format!("{MOST_BYTES} bytes at most; a function of yours may do more"),
            ));
        }
        expression::require_one(name, text)?;
    }
    Ok(text)
}

/// Refuses what does not go together.
fn check(wanted: &WatchDefinition, has_queue: bool) -> Result<()> {
    let conflict = |message: &str, hint: &str| {
        Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message).hint(hint))
    };
    if wanted.columns.is_some() && !wanted.events.contains(&Op::Update) {
        return conflict(
            "columns are given, and updates are not watched",
            "columns says which updates count: add 'update' to events, or leave columns out.",
        );
    }
    for (name, expression) in wanted.expressions_given() {
        if expression.is_some() && wanted.events == [Op::Truncate] {
            return conflict(
                &format!("{name} is given, and only truncate is watched"),
                "There are no rows to look at: add other events, or leave it out.",
            );
        }
    }
    if wanted.args_expr.is_some() && !has_queue {
        return conflict(
            "args_expr is given without a queue",
            "args_expr makes the arguments of jobs: name their queue, or pass payload_expr.",
        );
    }
    if wanted.payload_expr.is_some() && wanted.channel.is_none() {
        return conflict(
            "payload_expr is given without a channel",
            "Jobs take their arguments from args_expr; name a channel to send notices as well.",
        );
    }
    if wanted.topic_expr.is_some() && wanted.channel.is_none() {
        return conflict(
            "topic_expr is given without a channel",
            "A job has no topic: name a channel to send notices as well.",
        );
    }
    if wanted.topic_expr.is_some() && wanted.delivery == Some(Delivery::Notify) {
        return conflict(
            "topic_expr does not go with delivery => 'notify'",
            "Topics are in the event log, for subscriptions: leave delivery or topic_expr out.",
        );
    }
    if wanted.level == Level::Statement {
        if matches!(wanted.payload, Payload::Row | Payload::Diff) {
            return conflict(
                &format!(
                    "level => 'statement' does not go with payload => '{}'",
                    wanted.payload.as_str()
                ),
                "A notice per statement has the count and the keys (payload => 'key'), or nothing ('none').",
            );
        }
        if wanted.payload_expr.is_some() || wanted.args_expr.is_some() {
            return conflict(
                "level => 'statement' does not go with payload_expr or args_expr",
                "They are about one row; condition and columns can be given.",
            );
        }
        if wanted.topic_expr.is_some() {
            return conflict(
                "level => 'statement' does not go with topic_expr",
                "A topic is of one row; condition and columns can be given.",
            );
        }
    }
    if wanted.merge && wanted.delivery == Some(Delivery::Notify) {
        return conflict(
            "merge => true does not go with delivery => 'notify'",
            "NOTIFY merges equal notices of one transaction only; delivery => 'relay' can merge those of several.",
        );
    }
    Ok(())
}

/// The relation a function is called for.
pub fn relation(call: Call) -> Result<Oid> {
    call.opt_oid(0)
        .ok_or_else(|| Error::null_argument("relation"))
}
