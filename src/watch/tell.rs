//! From a change to what is told of it: a notice, a job, or both.

use std::rc::Rc;

use super::counts::{self, Tally};
use super::known::Known;
use super::payload::{Change, Keys, Kind, Origin};
use super::statement;
use super::triggers::Expression;
use crate::errors::{Error, Result};
use crate::job::{current, position};
use crate::notice::buffer::{self, Delivery, Item};
use crate::notice::oversize;
use crate::notice::repeats::{self, Repeat};
use crate::pg::expression::{Evaluation, Evaluator};
use crate::pg::json::room;
use crate::pg::slot::Slot;
use crate::pg::subtransaction::{self, CallError};
use crate::pg::trigger::Op;
use crate::pg::{ereport, notify, session, text, transaction};
use crate::queue::held::HeldQueue;
use crate::settings;
use crate::watch::definition::{Level, Payload, Way};

fn origin() -> Origin {
    Origin {
        pid: session::pid(),
        xid: transaction::xid(),
    }
}

/// Runs `work`, in a subtransaction where it may fail.
pub fn guarded<T>(
    may_fail: bool,
    work: impl FnOnce() -> std::result::Result<T, CallError>,
) -> std::result::Result<T, CallError> {
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
}

/// A row has changed. `unchecked`: see fire::changed.
pub fn row(
    watch: &Rc<Known>,
    op: Op,
    old: Option<Slot<'_>>,
    new: Option<Slot<'_>>,
    unchecked: bool,
) -> Result<()> {
    let change = change(watch, op, old, new);
    let evaluated = if watch.has_expressions() {
        let (old, new) = (
            old.unwrap_or_else(|| watch.no_row()),
            new.unwrap_or_else(|| watch.no_row()),
        );
        match evaluate(watch, old, new, unchecked) {
            Ok(evaluated) if !evaluated.passes => return Ok(()),
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
        return match statement::add(watch, op, &change) {
            Ok(()) => Ok(()),
            Err(error) => failed(watch, op, Some(&change), error),
        };
    }
    let mut payload = watch.new_payload();
    let may_fail = watch.shape.can_fail(watch.kind) || watch.shape.has_large(watch.kind, &change);
    let written = guarded(may_fail, || {
        room::bounded(settings::max_payload(), &mut payload, |payload| {
            watch.shape.row(watch.kind, &change, origin(), payload);
        })
    });
    watch.note_length(&payload);
    match written {
        Ok(()) => send(watch, op, Some(&change), payload, evaluated),
        Err(error) => failed(watch, op, Some(&change), error),
    }
}

/// A table was emptied.
pub fn truncated(watch: &Rc<Known>) -> Result<()> {
    let mut payload = Vec::new();
    if watch.kind != Kind::None {
        match watch.definition.level {
            Level::Row => watch
                .shape
                .row(watch.kind, &Change::Truncate, origin(), &mut payload),
            Level::Statement => {
                let none = Keys::new(0);
                watch
                    .shape
                    .statement(Op::Truncate, &none, origin(), &mut payload);
            }
        }
    }
    send(watch, Op::Truncate, None, payload, Evaluated::default())
}

/// A statement is over, with these rows.
pub fn statement(watch: &Rc<Known>, op: Op, keys: &Keys) -> Result<()> {
    let mut payload = Vec::new();
    if watch.kind != Kind::None {
        watch.shape.statement(op, keys, origin(), &mut payload);
    }
    send(watch, op, None, payload, Evaluated::default())
}

fn change<'a>(watch: &Known, op: Op, old: Option<Slot<'a>>, new: Option<Slot<'a>>) -> Change<'a> {
    let upto = watch.shape.reads_upto(watch.kind);
    let (old, new) = (
        old.map(|row| row.tuple(upto)),
        new.map(|row| row.tuple(upto)),
    );
    match (op, old, new) {
        (Op::Insert, _, Some(new)) => Change::Insert { new },
        (Op::Update, Some(old), Some(new)) => Change::Update { old, new },
        (Op::Delete, Some(old), _) => Change::Delete { old },
        _ => Change::Truncate,
    }
}

fn evaluate(
    watch: &Known,
    old: Slot<'_>,
    new: Slot<'_>,
    unchecked: bool,
) -> std::result::Result<Evaluated, CallError> {
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
    watch.with_evaluator(|evaluator: &Evaluator| {
        let may_fail = given
            .iter()
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
            Ok(evaluated)
        })
    })
}

/// Sends a payload where the watch says; expressions may have made another, or the arguments of the job.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn send(
    watch: &Rc<Known>,
    op: Op,
    change: Option<&Change<'_>>,
    payload: Vec<u8>,
    evaluated: Evaluated,
) -> Result<()> {
    let mut tally = Tally::default();
    if let Some(queue) = &watch.definition.queue {
        let args = match evaluated.args {
            Some(args) => Ok(args),
            None => default_args(watch, &payload),
        };
        match args {
            Ok(args) => {
                tally.jobs += add_job(watch, queue, args, &mut tally)?;
            }
            Err(error) => return failed(watch, op, change, error),
        }
    }
    let payload = evaluated.payload.unwrap_or(payload);
    tally.notices += add_notice(watch, op, change, payload)?;
    counts::add(watch.definition.watch_id, watch.counter, tally);
    Ok(())
}

fn default_args(watch: &Known, payload: &[u8]) -> std::result::Result<Vec<u8>, CallError> {
    if payload.is_empty() {
        return text::jsonb(b"{}");
    }
    let may_fail = watch.shape.may_be_no_jsonb(watch.kind) || payload.len() > room::LARGE;
    guarded(may_fail, || text::jsonb(payload))
}

/// How many jobs were added: none when the watch's owner may not enqueue (any more).
fn add_job(watch: &Known, queue: &HeldQueue, args: Vec<u8>, tally: &mut Tally) -> Result<u64> {
    match watch.request(queue) {
        Ok(request) => {
            let id = position::next()?;
            buffer::add(Item::Job { id, request, args })?;
            Ok(1)
        }
        Err(error) => {
            tally.errors += 1;
            log(watch, &error);
            Ok(0)
        }
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn add_notice(watch: &Known, op: Op, change: Option<&Change<'_>>, payload: Vec<u8>) -> Result<u64> {
    let Some(channel) = &watch.channel else {
        return Ok(0);
    };
    let payload = if payload.len() <= longest(watch) {
        payload
    } else {
        refer(watch, op, change, &payload)?
    };
    buffer::add(Item::Notice {
        channel: Rc::clone(channel),
        payload,
        delivery: match watch.way() {
            Way::Notify => Delivery::Notify,
            Way::Relay => Delivery::Relay {
                merge: watch.definition.merge,
                cause: current::cause(),
            },
        },
        repeat: repeat(watch),
    })?;
    Ok(1)
}

/// What an equal notice of the watch means in the same transaction.
fn repeat(watch: &Known) -> Repeat {
    match (watch.definition.payload, watch.definition.level) {
        (Payload::None | Payload::Expression, _) => Repeat::Replaces,
        (Payload::Row | Payload::Diff, _) | (_, Level::Statement) => Repeat::Counts,
        (Payload::Key, Level::Row) => Repeat::Follows,
    }
}

/// Bytes that a payload of the watch may have and be sent as it is: by NOTIFY a member may be added to JSON.
pub fn longest(watch: &Known) -> usize {
    match (watch.way(), repeat(watch)) {
        (Way::Notify, Repeat::Counts | Repeat::Follows) => {
            notify::PAYLOAD_LIMIT - repeats::MEMBER_BYTES
        }
        _ => notify::PAYLOAD_LIMIT,
    }
}

/// Keeps a payload that is too long for NOTIFY, and answers what is sent for it.
fn refer(watch: &Known, op: Op, change: Option<&Change<'_>>, payload: &[u8]) -> Result<Vec<u8>> {
    let id = oversize::keep(watch.channel.as_deref().unwrap_or_default(), payload)?;
    let mut reference = Vec::new();
    if let Some(change) = change {
        let origin = origin();
        // The key was written before: that it fails now takes a function that answers differently.
        let written = guarded(watch.shape.can_fail(Kind::Key), || {
            watch
                .shape
                .reference(change, origin, id, payload.len(), &mut reference);
            Ok(())
        });
        if written.is_err() {
            reference.clear();
        }
    }
    if reference.is_empty() || reference.len() > longest(watch) {
        reference.clear();
        watch
            .shape
            .bare_reference(op, origin(), id, payload.len(), &mut reference);
    }
    Ok(reference)
}

/// An expression or a conversion has failed: the write goes on, and the notice (or the job) says so. What
/// ends the statement or the transaction anyway goes on as an error.
fn failed(watch: &Rc<Known>, op: Op, change: Option<&Change<'_>>, error: CallError) -> Result<()> {
    let error = error.into_error();
    const QUERY_CANCELED: &str = "57014";
    const TRANSACTION_ROLLBACK: &str = "40";
    let code = error.sqlstate.0;
    if code == QUERY_CANCELED || code.starts_with(TRANSACTION_ROLLBACK) {
        return Err(error);
    }
    log(watch, &error);
    let payload = error_payload(watch, op, change, &error);
    let mut tally = Tally {
        errors: 1,
        ..Tally::default()
    };
    if let Some(queue) = &watch.definition.queue {
        let may_fail = change.is_some() && watch.shape.may_be_no_jsonb(Kind::Key);
        let args = guarded(may_fail, || text::jsonb(&payload))
            .or_else(|_| text::jsonb(&error_payload(watch, op, None, &error)));
        if let Ok(args) = args {
            tally.jobs += add_job(watch, queue, args, &mut tally)?;
        }
    }
    tally.notices += add_notice(watch, op, None, payload)?;
    counts::add(watch.definition.watch_id, watch.counter, tally);
    Ok(())
}

/// What is told of a change whose payload failed: with its key, unless that is what fails.
fn error_payload(watch: &Known, op: Op, change: Option<&Change<'_>>, error: &Error) -> Vec<u8> {
    let mut payload = Vec::new();
    let may_fail = change.is_some() && watch.shape.can_fail(Kind::Key);
    let written = guarded(may_fail, || {
        watch.shape.error(op, change, origin(), error, &mut payload);
        Ok(())
    });
    if written.is_err() {
        payload.clear();
        watch.shape.error(op, None, origin(), error, &mut payload);
    }
    payload
}

fn log(watch: &Known, error: &Error) {
    if watch.may_log() {
        let definition = &watch.definition;
        ereport::log(&Error {
            sqlstate: error.sqlstate,
            message: format!(
                "watch \"{}\" on {}: {}",
                definition.name, definition.relation_name, error.message
            ),
            detail: error.detail.clone(),
            hint: error.hint.clone(),
        });
    }
}
