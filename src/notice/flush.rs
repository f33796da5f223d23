//! Where notices go: NOTIFY, the event log, the queues.

use std::rc::Rc;

use super::buffer::{Delivery, Item};
use super::repeats::{self, Counter, Said};
use super::usual;
use crate::errors::Result;
use crate::job::moves::enqueue::Request;
use crate::log::{self, Event};
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
    let all: Vec<Said> = items.iter().filter_map(Item::said).collect();
    let mut counter = Counter::with_capacity(all.len());
    for (said, told) in all.iter().zip(repeats::told(&all)) {
        if told {
            notify::send(said.channel, &counter.distinct(said));
        }
    }
}

/// Gives jobs, and notices for the log, to where they go, in order.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn out(items: &[Item]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    if let [Item::Notice {
        channel,
        payload,
        delivery: Delivery::Relay { merge, cause },
        ..
    }] = items
    {
        // Most transactions: without a list of one.
        return to_log(&[event(channel, payload, *merge, *cause)]);
    }
    let mut jobs = Vec::new();
    let mut events = Vec::new();
    let mut said = Vec::new();
    for item in items {
        match item {
            Item::Notice {
                channel,
                payload,
                delivery: Delivery::Relay { merge, cause },
                ..
            } => {
                if events.is_empty() {
                    events.reserve_exact(items.len());
                }
                events.push(event(channel, payload, *merge, *cause));
                said.extend(item.said());
            }
            Item::Notice { .. } => unreachable!("in a pile of their own"),
            Item::Job { id, request, args } => jobs.push((request, *id, args)),
        }
    }
    append(events, &said)?;
    enqueue(&jobs)
}

fn event<'a>(
    channel: &'a [u8],
    payload: &'a [u8],
    merge: bool,
    cause: Option<(i64, i32)>,
) -> Event<'a> {
    Event {
        channel,
        payload,
        merge,
        cause,
    }
}

fn append(mut events: Vec<Event<'_>>, said: &[Said<'_>]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut told = repeats::told(said).into_iter();
    events.retain(|_| told.next() == Some(true));
    to_log(&events)
}

fn to_log(events: &[Event<'_>]) -> Result<()> {
    if !usual::is_told() && events.iter().any(is_a_users) {
        usual::warn_of_silence();
    }
    log::append(events)
}

/// Not what Pushy says itself.
fn is_a_users(event: &Event<'_>) -> bool {
    !event.channel.starts_with(b"pushy_")
}

/// The bytes of the log that these jobs and notices will be counted.
pub fn counted_bytes(items: &[Item]) -> usize {
    let said: Vec<Said> = items.iter().filter_map(Item::said).collect();
    let told = repeats::told(&said).into_iter();
    let counted = said.iter().zip(told).filter(|(_, told)| *told);
    counted
        .map(|(said, _)| log::counted_bytes(said.channel, said.payload))
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
