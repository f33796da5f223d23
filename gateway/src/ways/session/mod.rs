//! One client, whichever way it came: its subscriptions, its authority, its timers. `next` says what to write.

mod authority;
mod catching;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::{Future, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pushy_core::log::cursor::Cursor;
use tokio::time::{sleep_until, timeout, Instant};

use crate::clock;
use crate::gateway::{Gateway, SocketEntry};
use crate::hub::outbox::{Command, Item, Outbox, Tag};
use crate::hub::AskedAt;
use crate::limits::{Counted, Taken};
use crate::presence::Room;
use crate::source::{Chunk, Redeemed, SourceError, Verdict};
use crate::topics::pattern::Pattern;
use crate::topics::routes::Key;
use crate::who::Principal;

use super::close::{self, Close};
use super::message::Refusal;

/// Written at a time.
const BATCH: usize = 64;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a client asked to hear.
#[derive(Clone, Debug)]
pub struct Request {
    pub tag: Tag,
    pub channel: String,
    /// None: all of the channel.
    pub topics: Option<Arc<[Pattern]>>,
    pub after: Option<Cursor>,
    pub latest: bool,
    pub presence: bool,
}

struct Subscribed {
    request: Request,
    /// None until the server has said that it may.
    key: Option<Key>,
    /// The last question to the server: the answer to no other counts.
    asked: u64,
    /// When that was asked.
    asked_at: AskedAt,
    /// Questions in a row that the server has not answered.
    unanswered: u32,
    room: Option<Room>,
    is_told_live: bool,
    /// What its topics take.
    weight: Taken,
}

enum Asked {
    Verdict(Tag, u64, Result<Verdict, SourceError>),
    Redeemed(Result<Option<Redeemed>, SourceError>),
}

struct Replay {
    key: Key,
    tag: Tag,
    after: Cursor,
    answer: Boxed<Result<Chunk, SourceError>>,
}

#[derive(Debug)]
pub enum Out {
    Items(Vec<Item>),
    /// A sign of life, with the cursor that all subscriptions have reached if it is another one.
    KeepAlive(Option<Cursor>),
    Expiring(i64),
    Close(Close),
}

pub struct Session {
    gateway: Arc<Gateway>,
    entry: Arc<SocketEntry>,
    id: u64,
    outbox: Arc<Outbox>,
    who: Option<Principal>,
    /// Its place among the sockets of its subject.
    of_subject: Option<Counted<String>>,
    subscribed: HashMap<Tag, Subscribed>,
    asks: FuturesUnordered<Boxed<Asked>>,
    /// A ticket is on its way to the server.
    is_redeeming: bool,
    last_ask: u64,
    /// Subscriptions that are not known to be live.
    catching: BTreeSet<Tag>,
    replay: Option<Replay>,
    empty_replays: u32,
    /// The end of its authority, or of the time to get one.
    ends: Instant,
    expiring: Option<Instant>,
    alive: Instant,
    /// A subscription that is refused ends the session: it has but one.
    is_single: bool,
    /// Why its only subscription was refused.
    refused: Option<Refusal>,
    /// What is written at a time, before the client is listened to again.
    batch: usize,
    last_position: Option<Cursor>,
}

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, SourceError>>,
) -> Result<T, SourceError> {
    let late = || SourceError::Away("no answer in time".to_owned());
    timeout(limit, answer).await.unwrap_or_else(|_| Err(late()))
}

impl Session {
    pub fn new(
        gateway: &Arc<Gateway>,
        transport: &'static str,
        address: IpAddr,
        is_single: bool,
        max_items: usize,
    ) -> Self {
        let settings = &gateway.settings;
        let outbox = gateway.hub.outbox(max_items, settings.buffer_bytes);
        let entry = Arc::new(SocketEntry {
            transport,
            address,
            since_us: clock::now_us(),
            outbox: outbox.clone(),
            sent: AtomicU64::new(0),
            who: Mutex::default(),
            channels: Mutex::default(),
        });
        gateway
            .metrics
            .sockets
            .get_or_create(&[("transport", transport)])
            .inc();
        gateway
            .metrics
            .opened
            .get_or_create(&[("transport", transport)])
            .inc();
        let session = Self {
            id: gateway.register(entry.clone()),
            gateway: gateway.clone(),
            entry,
            outbox,
            who: None,
            of_subject: None,
            subscribed: HashMap::new(),
            asks: FuturesUnordered::new(),
            is_redeeming: false,
            last_ask: 0,
            catching: BTreeSet::new(),
            replay: None,
            empty_replays: 0,
            ends: Instant::now() + settings.auth_timeout,
            expiring: None,
            alive: Instant::now() + settings.keep_alive,
            is_single,
            refused: None,
            batch: BATCH,
            last_position: None,
        };
        if gateway.is_stopping() {
            session.outbox.close(close::GOING_AWAY);
        }
        session
    }

    pub fn is_authenticated(&self) -> bool {
        self.who.is_some()
    }

    pub fn answer(&self, text: Arc<str>) {
        self.outbox.answer(text);
    }

    pub fn close(&self, close: Close) {
        self.outbox.close(close);
    }

    pub fn take(&self, max: usize) -> Vec<Item> {
        self.outbox.take(max)
    }

    fn obey(&mut self, command: &Command) {
        match command {
            Command::Recheck(tag) => self.ask(*tag),
            Command::CatchUp(tag) => {
                self.catching.insert(*tag);
            }
            Command::PresenceAnew(tag) => {
                let subscribed = self.subscribed.get(tag);
                if let Some((room, key)) =
                    subscribed.and_then(|one| Some((one.room.as_ref()?, one.key?)))
                {
                    if let Some(state) = self.gateway.presence.state(room, key) {
                        self.outbox.answer(state);
                    }
                }
            }
        }
    }

    /// Answers that have come, however much there is to write.
    fn hear_what_is_there(&mut self) {
        while let Some(Some(asked)) = self.asks.next().now_or_never() {
            self.hear(asked);
        }
        let replay = self.replay.as_mut();
        if let Some(chunk) = replay.and_then(|replay| (&mut replay.answer).now_or_never()) {
            self.hear_replay(chunk);
        }
    }

    /// From where no subscription misses anything, for a close.
    fn earliest(&self) -> Option<Cursor> {
        let keys = self.subscribed.values().filter_map(|one| one.key);
        // Of those that the server has not decided about, what they asked for.
        let asked = self.subscribed.values().filter(|one| one.key.is_none());
        let asked = asked.filter_map(|one| one.request.after).min();
        let heard = self.gateway.hub.earliest_position(keys);
        heard.into_iter().chain(asked).min()
    }

    fn close_at_earliest(&self, close: Close) {
        self.outbox.close(Close {
            cursor: self.earliest(),
            ..close
        });
    }

    fn wake_at(&self) -> Instant {
        let ends = self.expiring.unwrap_or(self.ends).min(self.ends);
        ends.min(self.alive)
    }

    /// The end of its authority comes in time, however much there is to write.
    fn end(&mut self, now: Instant) -> Option<Out> {
        if now >= self.ends {
            let close = if self.who.is_some() {
                close::EXPIRED
            } else {
                close::UNAUTHENTICATED
            };
            return Some(Out::Close(close));
        }
        if self.expiring.is_some_and(|expiring| now >= expiring) {
            self.expiring = None;
            return Some(Out::Expiring(
                self.who.as_ref().map_or(0, |who| who.until_s),
            ));
        }
        None
    }

    fn sign_of_life(&mut self, now: Instant) -> Option<Out> {
        if now >= self.alive {
            self.wrote(now);
            let keys = self.subscribed.values().filter_map(|one| one.key);
            let has_all = !self.subscribed.is_empty()
                && self.subscribed.values().all(|one| one.key.is_some());
            let position = self
                .gateway
                .hub
                .common_position(keys, &self.outbox)
                .filter(|_| has_all);
            let news = position.filter(|_| position != self.last_position);
            self.last_position = position.or(self.last_position);
            return Some(Out::KeepAlive(news));
        }
        None
    }

    fn wrote(&mut self, now: Instant) {
        self.alive = now + self.gateway.settings.keep_alive;
    }

    /// The next thing to write. Dropped half-way, nothing is lost.
    pub async fn next(&mut self) -> Out {
        loop {
            while let Some(command) = self.outbox.take_command() {
                self.obey(&command);
            }
            self.hear_what_is_there();
            if let Some(out) = self.end(Instant::now()) {
                return out;
            }
            // Those that are behind go on beside those that always have something to say.
            let has_more = self.outbox.has_much_room() && self.catch_up();
            let items = self.outbox.take(self.batch);
            if !items.is_empty() {
                self.wrote(Instant::now());
                return Out::Items(items);
            }
            if let Some(close) = self.outbox.closed() {
                return Out::Close(close);
            }
            if has_more {
                tokio::task::yield_now().await;
                continue;
            }
            if let Some(out) = self.sign_of_life(Instant::now()) {
                return out;
            }
            let wake_at = self.wake_at();
            let replay = async {
                match &mut self.replay {
                    Some(replay) => (&mut replay.answer).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.outbox.ready() => {}
                chunk = replay => self.hear_replay(chunk),
                Some(asked) = self.asks.next(), if !self.asks.is_empty() => self.hear(asked),
                () = sleep_until(wake_at) => {}
            }
        }
    }

    /// Until the server has said whether the only subscription may be; why it may not.
    pub async fn settle(&mut self) -> Result<(), Refusal> {
        while let Some(asked) = self.asks.next().await {
            self.hear(asked);
        }
        match self.refused.take() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    pub fn is_live(&self, tag: Tag) -> bool {
        let key = self.subscribed.get(&tag).and_then(|one| one.key);
        key.is_some_and(|key| self.gateway.hub.is_live(key)) && self.outbox.is_empty()
    }

    /// Takes no more than so many at a time.
    pub fn set_batch(&mut self, batch: usize) {
        self.batch = batch.clamp(1, BATCH);
    }

    /// Counts what was written.
    pub fn sent(&self, items: &[Item], transport: &'static str) {
        let metrics = &self.gateway.metrics;
        self.gateway.changes.sent.notify_one();
        let now_us = clock::now_us();
        let mut notices = 0;
        for item in items {
            match item {
                Item::Notice { notice, .. } => {
                    notices += 1;
                    // Clocks differ: nothing is delivered before it is published.
                    metrics
                        .delivery
                        .observe((now_us - notice.at_us).max(0) as f64 / 1e6);
                }
                Item::Resync { .. } => {
                    metrics.resyncs.inc();
                }
                Item::Message(_) => {}
            }
        }
        if notices > 0 {
            metrics
                .sent
                .get_or_create(&[("transport", transport)])
                .inc_by(notices);
            self.entry.sent.fetch_add(notices, Ordering::Relaxed);
        }
    }

    pub fn count_close(&self, close: &Close) {
        self.gateway
            .metrics
            .closed
            .get_or_create(&[("reason", close.reason)])
            .inc();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let tags: Vec<Tag> = self.subscribed.keys().copied().collect();
        for tag in tags {
            self.unsubscribe(tag);
        }
        self.gateway.forget(self.id);
        self.gateway
            .metrics
            .sockets
            .get_or_create(&[("transport", self.entry.transport)])
            .dec();
    }
}
