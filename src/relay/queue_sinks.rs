//! Queues that subscribe: which there are, and whose turn it is.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use pushy_core::circle::{Circle, Owner};
use pushy_core::rest::Rest;

use super::queue_sink::{run_sink, SinkProgress};
use crate::errors::Result;
use crate::log::subscription::table::{self, OfQueue};
use crate::pg::{clock, identity, interrupts, transaction};
use crate::relay::worker::Relay;
use crate::shared::database::NEVER;

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
    /// It may have notices, and is looked at then (µs), because its last look took long.
    rests: Option<i64>,
    /// Until then (µs) it is not looked at.
    rests_until: i64,
}

impl QueueSink {
    fn new(name: String, owner: Owner) -> Self {
        Self {
            name,
            owner,
            held: None,
            rests: None,
            rests_until: 0,
        }
    }

    /// The clock may have been set back.
    fn is_resting(&self, now: i64) -> bool {
        self.rests_until > now && self.rests_until - now <= LAST_AGAIN_US
    }
}

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
            || self
                .subscriptions
                .values()
                .any(|sink| sink.held.is_some() || sink.rests.is_some())
    }

    /// Takes them as they are by now: who waits keeps its place.
    fn replace(&mut self, any: bool, read: Vec<OfQueue>, generation: u64) {
        let mut before = std::mem::take(&mut self.subscriptions);
        let sinks = read.into_iter().map(|(number, name, owner)| {
            let owner = owner.to_u32();
            let sink = match before.remove(&number) {
                Some(sink) => QueueSink {
                    name,
                    owner,
                    ..sink
                },
                None => QueueSink::new(name, owner),
            };
            (number, sink)
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
        for (number, sink) in &mut self.subscriptions {
            let is_wanted = sink.rests.is_some() || wanted(sink);
            sink.rests = (is_wanted && sink.is_resting(now)).then_some(sink.rests_until);
            if sink.rests.is_some() {
                continue;
            }
            // The clock may have been set back.
            let is_later = sink
                .held
                .is_some_and(|(at, _)| at > now && at - now <= LAST_AGAIN_US);
            if !is_later && is_wanted {
                self.waiting.push(sink.owner, *number);
            }
        }
    }

    /// What came of the attempt with one of them.
    fn note(&mut self, number: i32, progress: &SinkProgress, rests_until: i64, now: i64) {
        let Some(sink) = self.subscriptions.get_mut(&number) else {
            return;
        };
        sink.rests_until = rests_until;
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
            if sink.is_resting(now) {
                sink.rests = Some(rests_until);
            } else {
                self.waiting.push(sink.owner, number);
            }
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
            let rests = Cell::new(0);
            let progress = run_sink(self.database_slot, &sink.name, &rests);
            let now = clock::now().0;
            match progress {
                Ok(progress) => self.sinks.note(number, &progress, rests.get(), now),
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
        let resting = self.sinks.subscriptions.values();
        let resting = resting.filter_map(|sink| sink.rests);
        let again = held.map(|(at, _)| at).chain(resting).chain(stale);
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
