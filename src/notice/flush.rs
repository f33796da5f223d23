//! Where notices go: NOTIFY, the event log, the queues.

use std::collections::HashSet;
use std::rc::Rc;

use super::buffer::{Delivery, Item};
use crate::errors::Result;
use crate::job::request::Request;
use crate::log::{self, Event};
use crate::pg::{identity, notify, session, text, transaction, Datum};

/// Gives items to where they go, in order. Equal notices among them are told once, as NOTIFY does it.
pub fn out(items: Vec<Item>) -> Result<()> {
    let mut jobs = Vec::new();
    let mut logged = Vec::new();
    for item in items {
        match item {
            Item::Notice {
                channel,
                payload,
                delivery: Delivery::Notify,
            } => notify::send(&channel, &payload),
            Item::Notice {
                channel,
                payload,
                delivery: Delivery::Relay { merge, cause },
            } => logged.push((channel, payload, merge, cause)),
            Item::Job { id, request, args } => jobs.push((request, id, args)),
        }
    }
    append(&logged)?;
    enqueue(jobs)
}

/// A notice for the event log: its channel, its payload, whether it merges, the job that says it.
type Logged = (Rc<[u8]>, Vec<u8>, bool, Option<(i64, i32)>);

fn append(logged: &[Logged]) -> Result<()> {
    if logged.is_empty() {
        return Ok(());
    }
    let mut told = HashSet::with_capacity(logged.len());
    let events: Vec<Event<'_>> = logged
        .iter()
        .map(|(channel, payload, merge, cause)| Event {
            channel,
            payload,
            merge: *merge,
            cause: *cause,
        })
        // Jobs of a batch share a transaction, and know nothing of each other.
        .filter(|event| told.insert((event.channel, event.payload, event.cause)))
        .collect();
    log::append(&events)
}

fn enqueue(jobs: Vec<(Rc<Request>, i64, Vec<u8>)>) -> Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let add = || {
        for run in jobs.chunk_by(|one, next| Rc::ptr_eq(&one.0, &next.0)) {
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
