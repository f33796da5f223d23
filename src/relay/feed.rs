//! Queues that subscribe: each notice becomes a job, exactly once, for the cursor moves in the same transaction.

use std::sync::atomic::Ordering;

use pushy_core::json;

use super::worker::Relay;
use crate::errors::{Error, Result, SqlState};
use crate::job::request;
use crate::log::read::{self, Found};
use crate::log::subscription::read::{start, Start};
use crate::log::subscription::table::{self, Subscription};
use crate::params;
use crate::pg::failure::Failure;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction;
use crate::pg::{clock, ereport, identity, interrupts, jsonb, BuiltinOid};
use crate::shared::database::NEVER;

/// Jobs of one transaction.
const MOST_AT_ONCE: usize = 1_000;

/// A subscription whose row somebody holds is tried again after so long (µs), then twice as long, up to a second.
const FIRST_AGAIN_US: i64 = 20_000;
const LAST_AGAIN_US: i64 = 1_000_000;

/// The subscriptions of queues, as they were read last.
#[derive(Default)]
pub struct Feeding {
    names: Vec<String>,
    /// Those whose row somebody held, and when (µs) they are tried again, after how long a wait.
    held: Vec<Held>,
    /// Of queues, or of readers.
    any: bool,
    /// The counter of definitions when they were read; None: never.
    generation: Option<u64>,
    /// The tick that all have been given.
    fed: Option<(i64, i64)>,
}

struct Held {
    name: String,
    at: i64,
    wait_us: i64,
}

/// What came of an attempt to feed a subscription.
enum Fed {
    All,
    /// There may be more.
    Some,
    /// Somebody holds its row, or something else it needs.
    Held,
}

static STOP: Plan = Plan::new(
    "UPDATE pushy.subscription SET stopped = $2 WHERE name OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::TEXTOID, BuiltinOid::TEXTOID],
);

impl Feeding {
    /// Whether there is a subscription.
    pub(super) fn has_subscriptions(&self) -> bool {
        self.any
    }

    /// Whether notices wait for a subscription whose row somebody holds.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }
}

impl Relay {
    /// Gives queues that subscribe what is new, but for subscriptions whose row somebody holds: answers when to try
    /// these again (µs).
    pub(super) fn feed(&mut self) -> std::result::Result<i64, Failure> {
        let generation = self.place.definitions.load(Ordering::SeqCst);
        if self.feeding.generation != Some(generation) {
            let all = transaction::run(|| identity::as_owner(table::all))?;
            self.feeding.any = !all.is_empty();
            let of_queues = all.into_iter().filter(|known| known.queue.is_some());
            self.feeding.names = of_queues.map(|known| known.name).collect();
            self.feeding.held.clear();
            self.feeding.generation = Some(generation);
            self.feeding.fed = None;
        }
        let last = (self.last.epoch, self.last.tick);
        let is_new = self.feeding.fed != Some(last);
        let now = clock::now().0;
        let held = std::mem::take(&mut self.feeding.held);
        let is_later = |name: &str| held.iter().any(|held| held.name == name && held.at > now);
        let due: Vec<String> = if is_new {
            let names = self.feeding.names.iter();
            names.filter(|name| !is_later(name)).cloned().collect()
        } else {
            let names = held.iter().filter(|held| held.at <= now);
            names.map(|held| held.name.clone()).collect()
        };
        for name in due {
            if !feed_all(&name)? {
                let before = held.iter().find(|held| held.name == name);
                let wait_us = before.map_or(FIRST_AGAIN_US, |held| held.wait_us * 2);
                self.feeding.held.push(Held {
                    at: now + wait_us.min(LAST_AGAIN_US),
                    wait_us: wait_us.min(LAST_AGAIN_US),
                    name,
                });
            }
        }
        self.feeding
            .held
            .extend(held.into_iter().filter(|held| held.at > now));
        self.feeding.fed = Some(last);
        let next = self.feeding.held.iter().map(|held| held.at).min();
        Ok(next.unwrap_or(NEVER))
    }
}

/// Gives one subscription's queue all there is; false when somebody holds its row.
fn feed_all(name: &str) -> std::result::Result<bool, Failure> {
    loop {
        match feed_some(name)? {
            Fed::All => return Ok(true),
            Fed::Held => return Ok(false),
            Fed::Some => interrupts::check(),
        }
    }
}

/// One transaction of jobs for one subscription.
fn feed_some(name: &str) -> std::result::Result<Fed, Failure> {
    let fed = transaction::run(|| {
        identity::as_owner(|| match table::find_if_free(name)? {
            Some(known) if feed_known(&known)? => Ok(Fed::Some),
            Some(_) => Ok(Fed::All),
            None if table::find(name)?.is_some() => Ok(Fed::Held),
            None => Ok(Fed::All),
        })
    });
    match fed {
        Ok(fed) => Ok(fed),
        Err(failure) if failure.is_busy() => Ok(Fed::Held),
        // The server lacks something: the relay waits and tries again.
        Err(failure) if crate::job::finish::is_infrastructure(&failure.sqlstate) => Err(failure),
        Err(failure) => {
            stop(name, &failure)?;
            Ok(Fed::All)
        }
    }
}

fn feed_known(known: &Subscription) -> Result<bool> {
    let Some(held) = &known.queue else {
        return Ok(false);
    };
    let queue = held.open(known.owner)?;
    if !known.is_home {
        // As with queues: nothing is done twice by a copy, until somebody declares it here.
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "it was created in another database or cluster",
        )
        .hint("Run pushy.subscription_create again."));
    }
    let Start::At(from) = start(known)? else {
        return Ok(false);
    };
    let filter = known.filter()?;
    let mut jobs = Vec::new();
    let passed = read::after(from, &filter, |found| {
        let (args, cause) = match found {
            Found::Resync(_) => (br#"{"resync":true}"#.to_vec(), None),
            Found::Notice(notice) => (args(&notice.channel, &notice.payload), notice.cause),
        };
        jobs.push((jsonb::from_json(&args), cause));
        Ok(jobs.len() < MOST_AT_ONCE)
    })?;
    if passed > from {
        request::add_for(&queue, known.owner, &jobs)?;
        table::move_to(&known.name, passed, Some(clock::now().0));
    }
    if known.stopped.is_some() {
        spi::run(&STOP, params![known.name.as_str(), None::<&str>]);
    }
    Ok(jobs.len() >= MOST_AT_ONCE)
}

/// What a job of a notice is given, in the database's encoding: in SQL_ASCII any bytes.
fn args(channel: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut args = br#"{"channel":"#.to_vec();
    json::quoted(channel, &mut args);
    args.extend_from_slice(br#","payload":"#);
    json::quoted(payload, &mut args);
    args.push(b'}');
    args
}

/// It cannot be fed: said in its row, and in the log of the server.
fn stop(name: &str, failure: &Failure) -> std::result::Result<(), Failure> {
    let said = transaction::run_unless_busy(|| {
        identity::as_owner(|| {
            // Whoever holds its row declares or drops it: it is said with the next notice, if it is still so.
            let known = table::find_if_free(name)?;
            let is_new = known
                .is_some_and(|known| known.stopped.as_deref() != Some(failure.message.as_str()));
            if is_new {
                spi::run(&STOP, params![name, failure.message.as_str()]);
            }
            Ok(is_new)
        })
    })?;
    if said == Some(true) {
        ereport::log(
            &Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("subscription \"{name}\" gives no jobs to its queue: {}", failure.message),
            )
            .hint("Its notices wait in the event log, for as long as that keeps them. It is tried again with the next notice."),
        );
    }
    Ok(())
}
