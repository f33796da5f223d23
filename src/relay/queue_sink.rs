//! Queues that subscribe: each notice becomes a job, exactly once, because the cursor moves in the same transaction.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use pushy_core::json;

use crate::errors::{Error, Result, SqlState};
use crate::job::moves::{enqueue, fail};
use crate::log::read::{self, Found};
use crate::log::subscription::read::{start, Start};
use crate::log::subscription::table::{self, Subscription};
use crate::params;
use crate::pg::failure::Failure;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction;
use crate::pg::{clock, ereport, identity, interrupts, jsonb, BuiltinOid};
use crate::relay::worker::Relay;
use crate::shared::database::{Database, NEVER};

/// Jobs of one transaction.
const MOST_AT_ONCE: usize = 1_000;

/// A subscription whose row somebody holds is tried again after so long (µs), then twice as long, up to a second.
const FIRST_AGAIN_US: i64 = 20_000;
const LAST_AGAIN_US: i64 = 1_000_000;

/// So long (µs) subscriptions are served, one after another, before LISTENers are served again: many subscriptions, or one
/// that is far behind, keep nobody waiting.
const STRETCH_US: i64 = 20_000;

/// The subscriptions of queues, as they were read last.
#[derive(Default)]
pub struct Feeding {
    subscriptions: Vec<Fed>,
    /// Subscriptions that may have notices to become jobs, by index, the next one first.
    waiting: VecDeque<usize>,
    /// There is a subscription, of a queue or of a reader.
    any: bool,
    /// The counter of definitions when they were read; None: never.
    generation: Option<u64>,
    /// The last tick for which every subscription was put into `waiting`, or put off.
    told: Option<(i64, i64)>,
}

struct Fed {
    name: String,
    is_waiting: bool,
    /// Somebody held its row: when (µs) it is tried again, and after how long a wait.
    held: Option<(i64, i64)>,
}

/// What came of an attempt to feed a subscription.
enum Came {
    All,
    /// There may be more.
    Some,
    /// Somebody holds its row, or something else it needs.
    Held,
}

static STOP: Plan = Plan::new(
    "UPDATE pushy_internal.subscription SET stopped = $2 WHERE name OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::TEXTOID, BuiltinOid::TEXTOID],
);

impl Feeding {
    /// Whether there is a subscription.
    pub(in crate::relay) fn has_subscriptions(&self) -> bool {
        self.any
    }

    /// Whether notices wait to become jobs: a subscription's turn has not come, or somebody holds its row.
    pub(in crate::relay) fn is_unfinished(&self) -> bool {
        !self.waiting.is_empty() || self.subscriptions.iter().any(|fed| fed.held.is_some())
    }

    /// Appends to `waiting` the wanted subscriptions that are not in it, unless put off because their row is locked.
    fn call(&mut self, now: i64, wanted: impl Fn(&Fed) -> bool) {
        for (index, fed) in self.subscriptions.iter_mut().enumerate() {
            let is_later = fed.held.is_some_and(|(at, _)| at > now);
            if !fed.is_waiting && !is_later && wanted(fed) {
                fed.is_waiting = true;
                self.waiting.push_back(index);
            }
        }
    }

    /// What came of the attempt to feed one of them.
    fn note(&mut self, index: usize, came: &Came, now: i64) {
        let fed = &mut self.subscriptions[index];
        fed.is_waiting = matches!(came, Came::Some);
        fed.held = match came {
            Came::Held => {
                let wait_us = fed.held.map_or(FIRST_AGAIN_US, |(_, wait_us)| wait_us * 2);
                let wait_us = wait_us.min(LAST_AGAIN_US);
                Some((now + wait_us, wait_us))
            }
            _ => None,
        };
        if fed.is_waiting {
            self.waiting.push_back(index);
        }
    }
}

impl Relay {
    /// Gives queues that subscribe what is new, for a while, passing over subscriptions whose row somebody holds: answers
    /// when to go on (µs), 0 for now.
    pub(in crate::relay) fn feed(&mut self) -> std::result::Result<i64, Failure> {
        let generation = self.place.definitions.load(Ordering::SeqCst);
        if self.feeding.generation != Some(generation) {
            self.place.log.has_stopped.store(false, Ordering::SeqCst);
            let (any, names) = transaction::run(|| identity::as_owner(table::of_queues))?;
            let fed = |name| Fed {
                name,
                is_waiting: false,
                held: None,
            };
            self.feeding = Feeding {
                subscriptions: names.into_iter().map(fed).collect(),
                any,
                generation: Some(generation),
                ..Feeding::default()
            };
        }
        let now = clock::now().0;
        let last = Some((self.last.epoch, self.last.tick));
        if self.feeding.told != last {
            self.feeding.told = last;
            self.feeding.call(now, |_| true);
        } else {
            self.feeding.call(now, |fed| fed.held.is_some());
        }
        let until = now + STRETCH_US;
        while let Some(index) = self.feeding.waiting.pop_front() {
            let came = feed_some(self.place, &self.feeding.subscriptions[index].name);
            let now = clock::now().0;
            match came {
                Ok(came) => self.feeding.note(index, &came, now),
                Err(failure) => {
                    self.feeding.waiting.push_front(index);
                    return Err(failure);
                }
            }
            interrupts::check();
            if now >= until && !self.feeding.waiting.is_empty() {
                return Ok(0);
            }
        }
        let held = self.feeding.subscriptions.iter().filter_map(|fed| fed.held);
        Ok(held.map(|(at, _)| at).min().unwrap_or(NEVER))
    }
}

/// One transaction of jobs for one subscription.
fn feed_some(place: &Database, name: &str) -> std::result::Result<Came, Failure> {
    let tried = Cell::new(None);
    let fed = transaction::run(|| {
        identity::as_owner(|| match table::find_if_free(name)? {
            Some(known) => {
                tried.set(Some(known.version));
                Ok(if feed_known(&known)? {
                    Came::Some
                } else {
                    Came::All
                })
            }
            None if table::find(name)?.is_some() => Ok(Came::Held),
            None => Ok(Came::All),
        })
    });
    match fed {
        Ok(fed) => Ok(fed),
        Err(failure) if failure.is_busy() => Ok(Came::Held),
        // The server lacks something: the relay waits and tries again.
        Err(failure) if fail::is_infrastructure(&failure.sqlstate) => Err(failure),
        Err(failure) => {
            place.log.has_stopped.store(true, Ordering::SeqCst);
            stop(name, tried.get(), &failure)?;
            Ok(Came::All)
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
        enqueue::add_for(&queue, known.owner, &jobs)?;
        table::move_to(known, passed, Some(clock::now().0));
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

/// It cannot be fed: said in its row, and in the log of the server. `tried`: the row that was found so; one that was written
/// since may be mended, or another's of that name.
fn stop(name: &str, tried: Option<u32>, failure: &Failure) -> std::result::Result<(), Failure> {
    let said = transaction::run_unless_busy(|| {
        identity::as_owner(|| {
            // Whoever holds its row declares or drops it: it is said with the next notice, if it is still so.
            let known = table::find_if_free(name)?;
            let is_new = known.is_some_and(|known| {
                tried == Some(known.version)
                    && known.stopped.as_deref() != Some(failure.message.as_str())
            });
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
