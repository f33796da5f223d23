//! From what is said of a change to where it goes: a notice, a job, or both.

use std::rc::Rc;

use super::keys::Keys;
use crate::errors::{Error, Result};
use crate::job::{current, position};
use crate::notice::buffer::{self, Item, Route};
use crate::notice::oversize;
use crate::notice::repeats::{self, Repeat};
use crate::pg::trigger::Op;
use crate::pg::{ereport, notify};
use crate::queue::reference::QueueReference;
use crate::shared::pending;
use crate::watch::cache::CachedWatch;
use crate::watch::content::{self, origin, Body, Content};
use crate::watch::counts::{self, WatchCounts};
use crate::watch::definition::{Delivery, Level, Payload};
use crate::watch::notice_json::{PayloadKind, RowChange, NO_KEY};
use crate::watch::statement;

/// A table was emptied.
pub fn truncated(watch: &Rc<CachedWatch>) -> Result<()> {
    let mut payload = Vec::new();
    if watch.kind != PayloadKind::None {
        match watch.definition.level {
            Level::Row => watch
                .shape
                .row(watch.kind, &RowChange::Truncate, origin(), &mut payload),
            Level::Statement => {
                let none = Keys::new(0);
                watch
                    .shape
                    .statement(Op::Truncate, &none, origin(), &mut payload);
            }
        }
    }
    content::bare(watch, Op::Truncate, payload)?.publish(watch, Op::Truncate)
}

/// A statement is over, with these rows.
pub fn statement(watch: &Rc<CachedWatch>, op: Op, keys: &Keys) -> Result<()> {
    let mut payload = Vec::new();
    if watch.kind != PayloadKind::None {
        watch.shape.statement(op, keys, origin(), &mut payload);
    }
    content::bare(watch, op, payload)?.publish(watch, op)
}

impl Content {
    /// Sends it where the watch says. No code of users runs.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn publish(self, watch: &Rc<CachedWatch>, op: Op) -> Result<()> {
        match self {
            Self::Nothing | Self::Counts(None) => Ok(()),
            Self::Counts(Some(keys)) => {
                statement::merge(watch, op, &keys);
                Ok(())
            }
            Self::RowChange(body) => send(watch, op, body, WatchCounts::default()),
            Self::Failure(failure) => {
                let (error, body) = *failure;
                log(watch, &error);
                let errors = 1;
                send(
                    watch,
                    op,
                    body,
                    WatchCounts {
                        errors,
                        ..WatchCounts::default()
                    },
                )
            }
        }
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn send(watch: &Rc<CachedWatch>, op: Op, body: Body, mut tally: WatchCounts) -> Result<()> {
    if let (Some(queue), Some(args)) = (&watch.definition.queue, body.args) {
        tally.jobs += add_job(watch, queue, args, &mut tally)?;
    }
    tally.notices += add_notice(watch, op, body.payload, body.topic, body.key)?;
    counts::add(watch.definition.watch_id, watch.counter, tally);
    Ok(())
}

/// How many jobs were added: none when the watch's owner may not enqueue (any more).
fn add_job(
    watch: &CachedWatch,
    queue: &QueueReference,
    args: Vec<u8>,
    tally: &mut WatchCounts,
) -> Result<u64> {
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
fn add_notice(
    watch: &CachedWatch,
    op: Op,
    payload: Vec<u8>,
    topic: Option<Box<[u8]>>,
    key: Option<Vec<u8>>,
) -> Result<u64> {
    let Some(channel) = &watch.channel else {
        return Ok(0);
    };
    let payload = if payload.len() <= longest(watch, topic.as_deref()) {
        payload
    } else {
        refer(watch, op, topic.as_deref(), key.as_deref(), &payload)?
    };
    buffer::add(Item::Notice {
        channel: Rc::clone(channel),
        topic,
        payload,
        delivery: match watch.delivery() {
            Delivery::Notify => {
                if watch.definition.delivery.is_none() {
                    pending::unlogged();
                }
                Route::Notify
            }
            Delivery::Relay => Route::Relay {
                merge: watch.definition.merge,
                cause: current::cause(),
            },
        },
        repeat: repeat(watch),
    })?;
    Ok(1)
}

/// What an equal notice of the watch means in the same transaction.
fn repeat(watch: &CachedWatch) -> Repeat {
    match (watch.definition.payload, watch.definition.level) {
        (Payload::None | Payload::Expression, _) => Repeat::Replaces,
        (Payload::Row | Payload::Diff, _) | (_, Level::Statement) => Repeat::Counts,
        (Payload::Key, Level::Row) => Repeat::Follows,
    }
}

/// Bytes that a payload of the watch may have and be sent as it is: by NOTIFY a member may be added to JSON.
///
/// A row of the log is on one page: a topic takes its bytes from the payload's.
pub fn longest(watch: &CachedWatch, topic: Option<&[u8]>) -> usize {
    let taken = match (watch.delivery(), repeat(watch)) {
        (Delivery::Notify, Repeat::Counts | Repeat::Follows) => repeats::MEMBER_BYTES,
        _ => topic.map_or(0, <[u8]>::len),
    };
    notify::PAYLOAD_LIMIT - taken
}

/// Keeps a payload that is too long for NOTIFY, and answers what is sent for it.
fn refer(
    watch: &CachedWatch,
    op: Op,
    topic: Option<&[u8]>,
    key: Option<&[u8]>,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let id = oversize::keep(watch.channel.as_deref().unwrap_or_default(), topic, payload)?;
    let written = |key: &[u8]| {
        let mut out = Vec::new();
        watch
            .shape
            .reference(op, key, origin(), id, payload.len(), &mut out);
        out
    };
    let reference = written(key.unwrap_or(NO_KEY));
    Ok(if reference.len() > longest(watch, topic) {
        written(NO_KEY)
    } else {
        reference
    })
}

fn log(watch: &CachedWatch, error: &Error) {
    if watch.may_log() {
        let definition = &watch.definition;
        ereport::log(&Error {
            message: format!(
                "watch \"{}\" on {}: {}",
                definition.name, definition.relation_name, error.message
            ),
            ..error.clone()
        });
    }
}
