//! Queues that subscribe: each notice becomes a job, exactly once, because the cursor moves in the same transaction.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pushy_core::circle::{Circle, Owner};
use pushy_core::json;
use pushy_core::rest::Rest;

use crate::errors::{Error, Result, SqlState};
use crate::job::moves::{enqueue, retry_or_discard};
use crate::log::read::{self, LogItem, Notice, Stretch};
use crate::log::subscription::read::{start, Start};
use crate::log::subscription::table::{self, OfQueue, Subscription};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction;
use crate::pg::{clock, ereport, identity, interrupts, jsonb, BuiltinOid};
use crate::relay::worker::Relay;
use crate::shared::database::{DatabaseSlot, NEVER};

/// Jobs of one transaction.
const MOST_AT_ONCE: usize = 1_000;

/// A subscription whose row somebody holds is tried again after so long (µs), then twice as long, up to a second.
const FIRST_AGAIN_US: i64 = 20_000;
const LAST_AGAIN_US: i64 = 1_000_000;

/// So long (µs) subscriptions are served, by turns of their owners, before LISTENers are served again: many subscriptions, or one
/// that is far behind, keep nobody waiting.
const STRETCH_US: i64 = 20_000;

/// The subscriptions of queues, as they were read last.
#[derive(Default)]
pub struct QueueSinks {
    subscriptions: BTreeMap<i32, QueueSink>,
    /// Subscriptions that may have notices to become jobs, by their numbers. They wait on when definitions have changed, because
    /// anybody may change some of his own all the time.
    waiting: Circle,
    /// There is a subscription, of a queue or of a reader.
    any: bool,
    /// The counter of definitions when they were read; None: never.
    generation: Option<u64>,
    /// Until then (µs) they are not read again, because the last reading took long.
    rest_until: i64,
    /// They have changed since, and wait for that.
    is_stale: bool,
    /// Turns that have moved one on.
    turns: u64,
    /// The last tick for which every subscription was put into `waiting`, or put off.
    emitted: Option<(i64, i64)>,
}

struct QueueSink {
    name: String,
    owner: Owner,
    /// Somebody held its row: when (µs) it is tried again, and after how long a wait.
    held: Option<(i64, i64)>,
}

/// What came of an attempt to enqueue what a subscription has.
enum SinkProgress {
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

impl QueueSinks {
    /// Whether there is a subscription.
    pub(in crate::relay) fn has_subscriptions(&self) -> bool {
        self.any
    }

    /// How many turns have moved a subscription on.
    pub(in crate::relay) fn turns(&self) -> u64 {
        self.turns
    }

    /// Whether notices wait to become jobs: another subscription is before theirs, or somebody holds their row.
    pub(in crate::relay) fn is_unfinished(&self) -> bool {
        self.is_stale
            || !self.waiting.is_empty()
            || self.subscriptions.values().any(|sink| sink.held.is_some())
    }

    /// Takes them as they are by now: who waits keeps its place.
    fn replace(&mut self, any: bool, read: Vec<OfQueue>, generation: u64) {
        let mut before = std::mem::take(&mut self.subscriptions);
        let sinks = read.into_iter().map(|(number, name, owner)| {
            let held = before.remove(&number).and_then(|sink| sink.held);
            let owner = owner.to_u32();
            (number, QueueSink { name, owner, held })
        });
        self.subscriptions = sinks.collect();
        let subscriptions = &self.subscriptions;
        self.waiting.retain(|owner, number| {
            let sink = subscriptions.get(&number);
            sink.is_some_and(|sink| sink.owner == owner)
        });
        self.any = any;
        self.generation = Some(generation);
        // What stopped one may be mended.
        self.emitted = None;
    }

    /// Puts the wanted subscriptions among those that wait, unless put off because their row is locked.
    fn call(&mut self, now: i64, wanted: impl Fn(&QueueSink) -> bool) {
        for (number, sink) in &self.subscriptions {
            // The clock may have been set back.
            let is_later = sink
                .held
                .is_some_and(|(at, _)| at > now && at - now <= LAST_AGAIN_US);
            if !is_later && wanted(sink) {
                self.waiting.push(sink.owner, *number);
            }
        }
    }

    /// What came of the attempt with one of them.
    fn note(&mut self, number: i32, progress: &SinkProgress, now: i64) {
        let Some(sink) = self.subscriptions.get_mut(&number) else {
            return;
        };
        sink.held = match progress {
            SinkProgress::Held => {
                let wait_us = sink.held.map_or(FIRST_AGAIN_US, |(_, wait_us)| wait_us * 2);
                let wait_us = wait_us.min(LAST_AGAIN_US);
                Some((now + wait_us, wait_us))
            }
            _ => None,
        };
        if matches!(progress, SinkProgress::Some) {
            self.turns += 1;
            self.waiting.push(sink.owner, number);
        }
    }
}

impl Relay {
    /// Gives queues that subscribe what is new, for a while, passing over subscriptions whose row somebody holds: answers
    /// when to go on (µs), 0 for now.
    pub(in crate::relay) fn run_sinks(&mut self) -> Result<i64> {
        self.read_sinks()?;
        let now = clock::now().0;
        let last = Some((self.last.epoch, self.last.tick));
        if self.sinks.emitted != last {
            self.sinks.emitted = last;
            self.sinks.call(now, |_| true);
        } else {
            self.sinks.call(now, |sink| sink.held.is_some());
        }
        let until = now + STRETCH_US;
        while let Some(number) = self.sinks.waiting.take_next() {
            let Some(sink) = self.sinks.subscriptions.get(&number) else {
                continue;
            };
            let progress = run_sink(self.database_slot, &sink.name);
            let now = clock::now().0;
            match progress {
                Ok(progress) => self.sinks.note(number, &progress, now),
                Err(failure) => {
                    self.sinks.waiting.put_back(sink.owner, number);
                    return Err(failure);
                }
            }
            interrupts::check();
            if now >= until && !self.sinks.waiting.is_empty() {
                return Ok(0);
            }
        }
        let held = self
            .sinks
            .subscriptions
            .values()
            .filter_map(|sink| sink.held);
        let stale = self.sinks.is_stale.then_some(self.sinks.rest_until);
        let again = held.map(|(at, _)| at).chain(stale);
        Ok(again.min().unwrap_or(NEVER))
    }

    /// Reads the subscriptions after a change of a definition; while that rests, it goes on with those that were read last,
    /// because anybody changes some of his own all the time.
    fn read_sinks(&mut self) -> Result<()> {
        let generation = self.database_slot.definitions.load(Ordering::SeqCst);
        let began = clock::now().0;
        self.sinks.is_stale = self
            .sinks
            .generation
            .is_some_and(|known| known != generation)
            && Rest::DEFINITIONS.is_on(self.sinks.rest_until, began);
        if self.sinks.is_stale || self.sinks.generation == Some(generation) {
            return Ok(());
        }
        self.database_slot
            .log
            .has_stopped
            .store(false, Ordering::SeqCst);
        let (any, read) = transaction::run(|| identity::as_owner(table::of_queues))?;
        self.sinks.replace(any, read, generation);
        let now = clock::now().0;
        self.sinks.rest_until = Rest::DEFINITIONS.until(now - began, now);
        Ok(())
    }
}

/// One transaction of jobs for one subscription.
fn run_sink(database_slot: &DatabaseSlot, name: &str) -> Result<SinkProgress> {
    let tried = Cell::new(None);
    let sink = transaction::run(|| {
        identity::as_owner(|| match table::find_if_free(name)? {
            Some(subscription) => {
                tried.set(Some(subscription.version));
                Ok(if fill(&subscription)? {
                    SinkProgress::Some
                } else {
                    SinkProgress::All
                })
            }
            None if table::find(name)?.is_some() => Ok(SinkProgress::Held),
            None => Ok(SinkProgress::All),
        })
    });
    match sink {
        Ok(sink) => Ok(sink),
        Err(failure) if failure.is_busy() => Ok(SinkProgress::Held),
        // The server lacks something: the relay waits and tries again.
        Err(failure) if retry_or_discard::is_infrastructure(failure.sqlstate) => Err(failure),
        Err(failure) => {
            database_slot.log.has_stopped.store(true, Ordering::SeqCst);
            stop(name, tried.get(), &failure)?;
            Ok(SinkProgress::All)
        }
    }
}

fn fill(subscription: &Subscription) -> Result<bool> {
    let Some(held) = &subscription.queue else {
        return Ok(false);
    };
    let queue = held.open(subscription.owner)?;
    if !subscription.is_home {
        // As with queues: nothing is done twice by a copy, until somebody declares it here.
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "it was created in another database or cluster",
        )
        .hint("Run pushy.subscription_create again."));
    }
    let Start::At(from) = start(subscription)? else {
        return Ok(false);
    };
    let filter = subscription.filter()?;
    let mut jobs = Vec::new();
    let reached = read::after(from, &filter, Stretch::TURN, |found| {
        let (args, cause) = match found {
            LogItem::Resync(_) => (br#"{"resync":true}"#.to_vec(), None),
            LogItem::Notice(notice) => (args(&notice), notice.cause),
        };
        jobs.push((jsonb::from_json(&args), cause));
        Ok(jobs.len() < MOST_AT_ONCE)
    })?;
    if reached.passed > from {
        enqueue::add_for(&queue, subscription.owner, &jobs)?;
        table::move_to(subscription, reached.passed, Some(clock::now().0));
    }
    if subscription.stopped.is_some() {
        spi::run(&STOP, params![subscription.name.as_str(), None::<&str>]);
    }
    Ok(jobs.len() >= MOST_AT_ONCE || reached.is_cut)
}

/// What a job of a notice is given, in the database's encoding: in SQL_ASCII any bytes.
fn args(notice: &Notice) -> Vec<u8> {
    let mut args = br#"{"channel":"#.to_vec();
    json::quoted(&notice.channel, &mut args);
    if let Some(topic) = &notice.topic {
        args.extend_from_slice(br#","topic":"#);
        json::quoted(topic, &mut args);
    }
    args.extend_from_slice(br#","payload":"#);
    json::quoted(&notice.payload, &mut args);
    args.push(b'}');
    args
}

/// Its jobs cannot be enqueued: said in its row, and in the log of the server. `tried`: the row that was found so; one that was written
/// since may be mended, or another's of that name.
fn stop(name: &str, tried: Option<u32>, failure: &Error) -> Result<()> {
    let said = transaction::run_unless_busy(|| {
        identity::as_owner(|| {
            // Whoever holds its row declares or drops it: it is said with the next notice, if it is still so.
            let subscription = table::find_if_free(name)?;
            let is_new = subscription.is_some_and(|subscription| {
                tried == Some(subscription.version)
                    && subscription.stopped.as_deref() != Some(failure.message.as_str())
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
