//! What a watch says of a row: everything for which code of users runs, in the firing for that row.
//!
//! Code of users are the watch's expressions, what generates virtual columns, and the casts and output functions of the types
//! in a payload. It runs here and nowhere else, while the trigger fires: as the writer, with the settings of the statement and
//! of the functions around it, under its timeouts and where it can be cancelled.
//!
//! | published | code of users runs | what comes later has |
//! | --- | --- | --- |
//! | a row | in its firing | nothing to do |
//! | a statement's rows | keys and conditions in each row's firing | bytes of keys |
//! | a row that arrives in another partition | in the firing of its insert, and before it in that of its delete, of which nothing is published | nothing to do |
//! | a row that leaves and does not arrive ([`partition_move`](crate::watch::fire::partition_move)) | in the firing of its delete | a [`Content`] |
//! | what is left at a commit, PREPARE or queue_run | never: [`transaction_end::later`] | the same |
//! | a cascade of a deferred foreign key | in the firing, when the server runs the cascade, as it says | as above |
//!
//! Handlers, and what they defer (constraint triggers), run under their job's deadline: see worker/run/run_job.rs.

use std::cell::Cell;
use std::rc::Rc;

use super::failed_content::{ends_statement, failed, without_topic};
use super::keys::Keys;
use crate::channel::topic;
use crate::errors::{Error, Result};
use crate::pg::expression::{Evaluation, Evaluator};
use crate::pg::json::limit;
use crate::pg::slot::Slot;
use crate::pg::subtransaction;
use crate::pg::trigger::Op;
use crate::pg::{session, text, transaction, transaction_end};
use crate::settings;
use crate::watch::cache::CachedWatch;
use crate::watch::definition::{Delivery, Level};
use crate::watch::notice_json::{Origin, PayloadKind, RowChange, NO_KEY};
use crate::watch::publish::longest;
use crate::watch::statement;
use crate::watch::triggers::Expression;

/// What is published of a change, as bytes.
pub enum Content {
    /// The watch is about other changes.
    Nothing,
    /// A row counts in its statement, or has been counted.
    Counts(Option<Keys>),
    RowChange(Body),
    /// An expression or a conversion has failed: the write goes on, and the notice (or the job) says so.
    Failure(Box<(Error, Body)>),
}

pub struct Body {
    pub payload: Vec<u8>,
    pub topic: Option<Box<[u8]>>,
    /// Of a job, a value of type jsonb; None without a queue.
    pub args: Option<Vec<u8>>,
    /// The key as a member, for the reference to a payload that is too long for NOTIFY.
    pub key: Option<Vec<u8>>,
}

pub fn origin() -> Origin {
    Origin {
        pid: session::pid(),
        xid: transaction::xid(),
    }
}

/// Runs `work`, in a subtransaction where it may fail.
pub fn guarded<T>(may_fail: bool, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if may_fail {
        subtransaction::run(work)
    } else {
        work()
    }
}

/// What the expressions of a watch say of a row.
#[derive(Default)]
struct Evaluated {
    /// Changed columns and the condition hold.
    passes: bool,
    payload: Option<Vec<u8>>,
    /// A value of type jsonb.
    args: Option<Vec<u8>>,
    topic: Option<Box<[u8]>>,
    /// The topic has failed, and nothing else.
    no_topic: Option<Box<Error>>,
}

/// What is said of a row; one of a statement's is counted there.
pub fn now(
    watch: &Rc<CachedWatch>,
    op: Op,
    old: Option<Slot<'_>>,
    new: Option<Slot<'_>>,
    unchecked: bool,
) -> Result<Content> {
    of_row(watch, op, old, new, unchecked, |change| {
        statement::add(watch, op, change).map(|()| Content::Counts(None))
    })
}

/// The same of a row of which nobody knows yet whether it has to be published.
pub fn ahead(
    watch: &Rc<CachedWatch>,
    op: Op,
    old: Option<Slot<'_>>,
    new: Option<Slot<'_>>,
) -> Result<Content> {
    of_row(watch, op, old, new, false, |change| {
        statement::keys_of(watch, change).map(|keys| Content::Counts(Some(keys)))
    })
}

/// `unchecked`: see `trigger::changed`. `count` counts a row that is published with its statement.
#[inline(always)]
fn of_row(
    watch: &Rc<CachedWatch>,
    op: Op,
    old: Option<Slot<'_>>,
    new: Option<Slot<'_>>,
    unchecked: bool,
    count: impl FnOnce(&RowChange<'_>) -> Result<Content>,
) -> Result<Content> {
    transaction_end::expect_now();
    let change = change(watch, op, old, new);
    let evaluated = if watch.has_expressions() {
        let (old, new) = (
            old.unwrap_or_else(|| watch.no_row()),
            new.unwrap_or_else(|| watch.no_row()),
        );
        match evaluate(watch, old, new, unchecked) {
            Ok(evaluated) if !evaluated.passes => return Ok(Content::Nothing),
            Ok(evaluated) => evaluated,
            Err(error) => return failed(watch, op, Some(&change), error),
        }
    } else {
        Evaluated::default()
    };
    let slots = watch
        .has_virtual_columns()
        .then(|| [watch.new_slot(), watch.new_slot()]);
    let change = match &slots {
        None => change,
        Some(slots) => match watch.completed(slots, old, new) {
            Ok([old, new]) => self::change(watch, op, old, new),
            Err(error) => return failed(watch, op, Some(&change), error),
        },
    };
    if watch.definition.level == Level::Statement {
        return count(&change).or_else(|error| failed(watch, op, Some(&change), error));
    }
    let mut payload = watch.new_payload();
    let may_fail = watch.shape.can_fail(watch.kind) || watch.shape.has_large(watch.kind, &change);
    let written = guarded(may_fail, || {
        limit::bounded(settings::max_payload(), &mut payload, |payload| {
            watch.shape.row(watch.kind, &change, origin(), payload);
        })
    });
    watch.note_length(&payload);
    match written {
        Ok(()) => of_payload(watch, op, Some(&change), payload, evaluated),
        Err(error) => failed(watch, op, Some(&change), error),
    }
}

fn change<'a>(
    watch: &CachedWatch,
    op: Op,
    old: Option<Slot<'a>>,
    new: Option<Slot<'a>>,
) -> RowChange<'a> {
    let upto = watch.shape.reads_upto(watch.kind);
    let (old, new) = (
        old.map(|row| row.tuple(upto)),
        new.map(|row| row.tuple(upto)),
    );
    match (op, old, new) {
        (Op::Insert, _, Some(new)) => RowChange::Insert { new },
        (Op::Update, Some(old), Some(new)) => RowChange::Update { old, new },
        (Op::Delete, Some(old), _) => RowChange::Delete { old },
        _ => RowChange::Truncate,
    }
}

fn evaluate(
    watch: &CachedWatch,
    old: Slot<'_>,
    new: Slot<'_>,
    unchecked: bool,
) -> Result<Evaluated> {
    let definition = &watch.definition;
    let given = [
        (
            Expression::Changed,
            definition.columns.is_some() && unchecked,
        ),
        (Expression::Condition, definition.condition.is_some()),
        (Expression::Payload, definition.payload_expr.is_some()),
        (Expression::Args, definition.args_expr.is_some()),
    ];
    let has = |wanted: Expression| given.contains(&(wanted, true));
    // NOTIFY has none.
    let has_topic = definition.topic_expr.is_some() && watch.delivery() == Delivery::Relay;
    let is_at_topic = Cell::new(false);
    let evaluated = |with_topic: bool| {
        watch.with_evaluator(|evaluator: &Evaluator| {
            let may_fail = given
                .iter()
                .chain(&[(Expression::Topic, with_topic)])
                .any(|(expression, given)| *given && !evaluator.is_safe(expression.index()));
            evaluator.evaluate(old, new, may_fail, |evaluation: &Evaluation<'_>| {
                for expression in [Expression::Changed, Expression::Condition] {
                    if has(expression) && !evaluation.is_true(expression.index())? {
                        return Ok(Evaluated::default());
                    }
                }
                let mut evaluated = Evaluated {
                    passes: true,
                    ..Evaluated::default()
                };
                if has(Expression::Payload) {
                    let most = settings::max_payload();
                    evaluated.payload = Some(evaluation.bytes(Expression::Payload.index(), most)?);
                }
                if has(Expression::Args) {
                    evaluated.args = evaluation.varlena(Expression::Args.index())?;
                }
                if with_topic {
                    is_at_topic.set(true);
                    evaluated.topic = topic(evaluation)?;
                }
                Ok(evaluated)
            })
        })
    };
    match evaluated(has_topic) {
        Err(error) if is_at_topic.get() && !ends_statement(&error) => {
            let mut evaluated = evaluated(false)?;
            evaluated.no_topic = Some(Box::new(error));
            Ok(evaluated)
        }
        evaluated => evaluated,
    }
}

/// An error where it is none: no longer than it may be, or with control characters.
fn topic(evaluation: &Evaluation<'_>) -> Result<Option<Box<[u8]>>> {
    let index = Expression::Topic.index();
    evaluation
        .opt_bytes(index, settings::max_payload())?
        .map(topic::checked)
        .transpose()
}

/// What is said without a row: of a TRUNCATE, or a whole statement.
pub fn bare(watch: &Rc<CachedWatch>, op: Op, payload: Vec<u8>) -> Result<Content> {
    of_payload(watch, op, None, payload, Evaluated::default())
}

/// A payload and the arguments of a job; expressions may have made others.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn of_payload(
    watch: &Rc<CachedWatch>,
    op: Op,
    change: Option<&RowChange<'_>>,
    payload: Vec<u8>,
    evaluated: Evaluated,
) -> Result<Content> {
    let args = match (&watch.definition.queue, evaluated.args) {
        (None, _) => None,
        (Some(_), Some(args)) => Some(args),
        (Some(_), None) => match default_args(watch, &payload) {
            Ok(args) => Some(args),
            Err(error) => return failed(watch, op, change, error),
        },
    };
    if let Some(error) = evaluated.no_topic {
        return Ok(without_topic(watch, op, change, *error, args));
    }
    let payload = evaluated.payload.unwrap_or(payload);
    let topic = evaluated.topic;
    let most = longest(watch, topic.as_deref());
    let key = match change {
        Some(change) if watch.channel.is_some() && payload.len() > most => {
            Some(key_member(watch, change))
        }
        _ => None,
    };
    Ok(Content::RowChange(Body {
        payload,
        topic,
        args,
        key,
    }))
}

#[cold]
fn key_member(watch: &CachedWatch, change: &RowChange<'_>) -> Vec<u8> {
    let mut key = Vec::new();
    // The key was written before: that it fails now takes a function that answers differently.
    let written = guarded(watch.shape.can_fail(PayloadKind::Key), || {
        watch.shape.write_key(change, &mut key);
        Ok(())
    });
    match written {
        Ok(()) => key,
        Err(_) => NO_KEY.to_vec(),
    }
}

fn default_args(watch: &CachedWatch, payload: &[u8]) -> Result<Vec<u8>> {
    if payload.is_empty() {
        return text::jsonb(b"{}");
    }
    let may_fail = watch.shape.may_be_no_jsonb(watch.kind) || payload.len() > limit::LARGE;
    guarded(may_fail, || text::jsonb(payload))
}
