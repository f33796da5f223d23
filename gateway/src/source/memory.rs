//! A source in memory: for tests and trials. It can be slow, fail, and have its log emptied or taken back.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pushy_core::log::cursor::Cursor;
use tokio::sync::watch;

use super::{
    Answer, Ask, Chunk, Event, KeyText, Metric, Reader, Redeemed, Report, Source, SourceError,
    Verdict,
};
use crate::clock;
use crate::lock;
use crate::notice::Notice;
use crate::topics::pattern::Pattern;

/// What a role may read of a channel; topics None: all.
#[derive(Clone, Debug)]
pub struct Grant {
    pub role: String,
    pub channel: String,
    pub topics: Option<String>,
    pub since: Option<Cursor>,
}

#[derive(Default)]
struct Inside {
    log: Vec<Arc<Notice>>,
    /// What is not after this cursor is gone.
    gone: Cursor,
    epoch: i64,
    tick: i64,
    grants: Vec<Grant>,
    tickets: HashMap<String, Redeemed>,
    keys: Vec<KeyText>,
    metrics: Vec<Metric>,
    report: Report,
    failure: Option<SourceError>,
    delay: Duration,
    /// Roles that the answer about is held back.
    held: HashSet<String>,
}

pub struct Memory {
    inside: Mutex<Inside>,
    changed: watch::Sender<u64>,
    /// Questions that were asked.
    pub asks: AtomicU64,
    pub reads: AtomicU64,
}

impl Default for Memory {
    fn default() -> Self {
        let inside = Inside {
            epoch: 1,
            gone: Cursor::new(1, 0, 0),
            ..Inside::default()
        };
        Self {
            inside: Mutex::new(inside),
            changed: watch::Sender::new(0),
            asks: AtomicU64::new(0),
            reads: AtomicU64::new(0),
        }
    }
}

impl Inside {
    fn end(&self) -> Cursor {
        self.log
            .last()
            .map_or(self.gone, |notice| notice.cursor)
            .max(self.gone)
    }

    fn read(&self, after: Cursor, max: u32) -> Chunk {
        let is_known = self.gone <= after && after <= self.end();
        let mut events = Vec::new();
        let mut next = after;
        if !is_known {
            events.push(Event::Resync(self.gone));
            next = self.gone;
        }
        let first = self.log.partition_point(|notice| notice.cursor <= next);
        for notice in self.log.iter().skip(first).take(max as usize) {
            next = notice.cursor;
            events.push(Event::Notice(notice.clone()));
        }
        Chunk { events, next }
    }

    fn authorize(&self, ask: &Ask) -> Verdict {
        let refused = || Verdict::Refused {
            reason: format!(
                "role {} may not read this of channel {}",
                ask.role, ask.channel
            ),
        };
        let channel = ask.channel.to_ascii_lowercase();
        let asked: Option<Vec<Pattern>> = ask
            .topics
            .iter()
            .map(|topic| Pattern::read(topic).ok())
            .collect();
        let Some(asked) = asked else {
            return refused();
        };
        let grants = self
            .grants
            .iter()
            .filter(|grant| grant.role == ask.role && grant.channel == channel);
        for grant in grants {
            let covers = match &grant.topics {
                None => true,
                Some(topics) => {
                    let own = Pattern::read_list(topics).unwrap_or_default();
                    let own: Vec<Pattern> = own
                        .iter()
                        .filter_map(|pattern| pattern.of_subject(ask.subject.as_deref()))
                        .collect();
                    !asked.is_empty()
                        && asked
                            .iter()
                            .all(|topic| own.iter().any(|own| own.covers(topic)))
                }
            };
            if covers {
                let since = grant.since.map(|since| since.to_string());
                return Verdict::Allowed { channel, since };
            }
        }
        refused()
    }
}

/// Bytes of a payload that a gateway reads.
const LONGEST_PAYLOAD: usize = 1 << 20;

fn made(cursor: Cursor, channel: &str, topic: Option<&str>, payload: &str) -> Arc<Notice> {
    let at_us = clock::now_us();
    Arc::new(if payload.len() > LONGEST_PAYLOAD {
        Notice::too_long(cursor, channel, topic, at_us)
    } else {
        Notice::new(cursor, channel, topic, payload, at_us)
    })
}

impl Memory {
    fn change<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        let changed = change(&mut lock(&self.inside));
        self.changed.send_modify(|version| *version += 1);
        changed
    }

    pub fn publish(&self, channel: &str, topic: Option<&str>, payload: &str) -> Cursor {
        self.change(|inside| {
            inside.tick += 1;
            let cursor = Cursor::new(inside.epoch, inside.tick, 1);
            inside.log.push(made(cursor, channel, topic, payload));
            cursor
        })
    }

    /// As many as one transaction published.
    pub fn publish_many(&self, channel: &str, many: &[(Option<&str>, &str)]) {
        self.change(|inside| {
            inside.tick += 1;
            for (n, (topic, payload)) in (1..).zip(many) {
                let cursor = Cursor::new(inside.epoch, inside.tick, n);
                inside.log.push(made(cursor, channel, *topic, payload));
            }
        });
    }

    /// Empties the log up to there.
    pub fn empty(&self, to: Cursor) {
        self.change(|inside| {
            inside.log.retain(|notice| notice.cursor > to);
            inside.gone = inside.gone.max(to);
        });
    }

    /// Another server goes on, which has not received the last so many: all readers are to resync.
    pub fn promote(&self, lost: usize) {
        self.change(|inside| {
            let kept = inside.log.len().saturating_sub(lost);
            inside.log.truncate(kept);
            inside.epoch += 1_000_000_000;
            inside.tick = 0;
            inside.gone = Cursor::new(inside.epoch, 0, 0);
            inside.log.clear();
        });
    }

    pub fn grant(&self, role: &str, channel: &str, topics: Option<&str>) {
        self.grant_since(role, channel, topics, None);
    }

    pub fn grant_since(
        &self,
        role: &str,
        channel: &str,
        topics: Option<&str>,
        since: Option<Cursor>,
    ) {
        let grant = Grant {
            role: role.to_owned(),
            channel: channel.to_owned(),
            topics: topics.map(str::to_owned),
            since,
        };
        self.change(|inside| inside.grants.push(grant));
    }

    /// And says so, as the server does.
    pub fn revoke(&self, role: &str, channel: &str) {
        self.change(|inside| {
            inside
                .grants
                .retain(|grant| grant.role != role || grant.channel != channel)
        });
        self.publish(
            "pushy_gateway",
            None,
            &format!(r#"{{"v":1,"event":"gateway_grants","channel":"{channel}"}}"#),
        );
    }

    pub fn ticket(&self, text: &str, ticket: Redeemed) {
        self.change(|inside| inside.tickets.insert(text.to_owned(), ticket));
    }

    pub fn set_keys(&self, keys: Vec<KeyText>) {
        self.change(|inside| inside.keys = keys);
        self.publish("pushy_gateway", None, r#"{"v":1,"event":"gateway_keys"}"#);
    }

    /// What the gateway has said of itself.
    pub fn report(&self) -> Report {
        lock(&self.inside).report.clone()
    }

    pub fn set_metrics(&self, metrics: Vec<Metric>) {
        self.change(|inside| inside.metrics = metrics);
    }

    /// Everything fails so, until `None`.
    pub fn fail(&self, failure: Option<SourceError>) {
        self.change(|inside| inside.failure = failure);
    }

    pub fn delay(&self, delay: Duration) {
        self.change(|inside| inside.delay = delay);
    }

    pub fn hold(&self, role: &str, is_held: bool) {
        self.change(|inside| {
            inside.held.remove(role);
            if is_held {
                inside.held.insert(role.to_owned());
            }
        });
    }

    async fn ask<T>(&self, answer: impl FnOnce(&mut Inside) -> T) -> Result<T, SourceError> {
        let delay = lock(&self.inside).delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut inside = lock(&self.inside);
        match &inside.failure {
            Some(failure) => Err(failure.clone()),
            None => Ok(answer(&mut inside)),
        }
    }
}

impl Source for Memory {
    fn position(&self) -> Answer<'_, Cursor> {
        Box::pin(self.ask(|inside| inside.end()))
    }

    fn wait(&self, after: Cursor, at_most: Duration) -> Answer<'_, bool> {
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            let mut come = std::pin::pin!(changed.wait_for(|_| {
                let inside = lock(&self.inside);
                inside.failure.is_some() || inside.end() != after
            }));
            let has_come = tokio::time::timeout(at_most, come.as_mut()).await.is_ok();
            self.ask(|_| has_come).await
        })
    }

    fn read(&self, _reader: Reader, after: Cursor, max: u32) -> Answer<'_, Chunk> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        Box::pin(self.ask(move |inside| inside.read(after, max)))
    }

    fn authorize(&self, ask: Ask) -> Answer<'_, Verdict> {
        self.asks.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let mut changed = self.changed.subscribe();
            let verdict = self.ask(|inside| inside.authorize(&ask)).await;
            // Whoever holds it back lives as long as this.
            let _ = changed
                .wait_for(|_| !lock(&self.inside).held.contains(&ask.role))
                .await;
            verdict
        })
    }

    fn redeem(&self, ticket: String) -> Answer<'_, Option<Redeemed>> {
        Box::pin(self.ask(move |inside| inside.tickets.remove(&ticket)))
    }

    fn keys(&self) -> Answer<'_, Vec<KeyText>> {
        Box::pin(self.ask(|inside| inside.keys.clone()))
    }

    fn metrics(&self) -> Answer<'_, Vec<Metric>> {
        Box::pin(self.ask(|inside| inside.metrics.clone()))
    }

    fn report(&self, report: Report) -> Answer<'_, ()> {
        Box::pin(self.ask(move |inside| inside.report = report))
    }
}
