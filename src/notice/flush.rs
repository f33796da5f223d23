//! Where notices go: NOTIFY, the event log, the queues.

use std::rc::Rc;

use pushy_core::channel;

use super::buffer::{Item, Route};
use super::repeats::{self, NoticeKey, RepeatCounter};
use crate::errors::Result;
use crate::job::moves::enqueue::Request;
use crate::log::{self, LoggedNotice};
use crate::obstacle;
use crate::pg::{identity, notify, session, text, transaction, Datum};

/// Gives notices to NOTIFY, in order.
pub fn notify(items: &[Item]) {
    if items.is_empty() {
        return;
    }
    if let [Item::Notice {
        channel, payload, ..
    }] = items
    {
        return notify::send(channel, payload);
    }
    let all: Vec<NoticeKey> = items.iter().filter_map(Item::key).collect();
    let mut counter = RepeatCounter::with_capacity(all.len());
    for (key, kept) in all.iter().zip(repeats::kept(&all)) {
        if kept {
            notify::send(key.channel, &counter.distinct(key));
        }
    }
}

/// Gives jobs, and notices for the log, to where they go, in order.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn out(items: &[Item]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    if let [item @ Item::Notice { .. }] = items {
        // Most transactions: without a list of one.
        return to_log(&[event(item)]);
    }
    let mut jobs = Vec::new();
    let mut events = Vec::new();
    let mut key = Vec::new();
    for item in items {
        match item {
            Item::Notice { .. } => {
                if events.is_empty() {
                    events.reserve_exact(items.len());
                }
                events.push(event(item));
                key.extend(item.key());
            }
            Item::Job { id, request, args } => jobs.push((request, *id, args)),
        }
    }
    append(events, &key)?;
    enqueue(&jobs)
}

#[inline]
fn event(item: &Item) -> LoggedNotice<'_> {
    let Item::Notice {
        channel,
        topic,
        payload,
        delivery: Route::Relay { merge, cause },
        ..
    } = item
    else {
        unreachable!("in a pile of their own")
    };
    LoggedNotice {
        channel,
        topic: topic.as_deref(),
        payload,
        merge: *merge,
        cause: *cause,
    }
}

fn append(mut events: Vec<LoggedNotice<'_>>, key: &[NoticeKey<'_>]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut kept = repeats::kept(key).into_iter();
    events.retain(|_| kept.next() == Some(true));
    to_log(&events)
}

fn to_log(events: &[LoggedNotice<'_>]) -> Result<()> {
    if !obstacle::is_emitted() && events.iter().any(is_a_users) {
        obstacle::warn_of_silence();
    }
    log::append(events)
}

/// Not what Pushy says itself.
fn is_a_users(event: &LoggedNotice<'_>) -> bool {
    !channel::is_ours(event.channel)
}

/// The bytes of the log that these jobs and notices will be counted.
pub fn counted_bytes(items: &[Item]) -> usize {
    let key: Vec<NoticeKey> = items.iter().filter_map(Item::key).collect();
    let kept = repeats::kept(&key).into_iter();
    let counted = key.iter().zip(kept).filter(|(_, kept)| *kept);
    counted
        .map(|(key, _)| log::counted_bytes(key.channel, key.topic, key.payload))
        .sum()
}

fn enqueue(jobs: &[(&Rc<Request>, i64, &Vec<u8>)]) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let add = || {
        for run in jobs.chunk_by(|one, next| Rc::ptr_eq(one.0, next.0)) {
            let jobs: Vec<(i64, Datum)> = run
                .iter()
                .map(|(_, id, args)| (*id, text::datum_of_flat(args)))
                .collect();
            run[0].0.add_numbered(&jobs)?;
        }
        Ok(())
    };
    // A commit has no snapshot, and what is not just appended wants one.
    transaction::with_snapshot(|| identity::as_owner(add))
}

/// Says on a channel that this many notices of the transaction were left out.
pub fn left_out(channel: &[u8], count: u64) {
    let message = format!(
        r#"{{"v":1,"op":"resync","left_out":{count},"pid":{},"xid":{}}}"#,
        session::pid(),
        transaction::xid(),
    );
    notify::send(channel, message.as_bytes());
}
