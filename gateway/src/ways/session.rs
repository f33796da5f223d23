//! One client, whichever way it came: its subscriptions, its authority, its timers. `next` says what to write.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::Future;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pushy_core::log::cursor::Cursor;
use tokio::time::{sleep_until, timeout, Instant};

use crate::clock;
use crate::gateway::{Gateway, SocketEntry};
use crate::hub::outbox::{Command, Item, Outbox, Tag};
use crate::hub::{too_slow, Step};
use crate::limits::Counted;
use crate::lock;
use crate::presence::Room;
use crate::source::{Ask, Chunk, Reader, Redeemed, SourceError, Verdict};
use crate::topics::pattern::Pattern;
use crate::topics::routes::{Key, Wants};
use crate::who::Principal;

use super::close::{self, Close};
use super::message::{self, Code, Refusal};

/// Written at a time.
const BATCH: usize = 64;
/// Notices that are read at a time for one that is behind.
const REPLAYED: u32 = 500;
/// A source that has nothing where the ring begins later is asked so often.
const MOST_EMPTY: u32 = 20;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a client asked to hear.
#[derive(Clone, Debug)]
pub struct Request {
    pub tag: Tag,
    pub channel: String,
    /// None: all of the channel.
    pub topics: Option<Vec<Pattern>>,
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
    room: Option<Room>,
    is_told_live: bool,
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

    /// Lets it in, or renews: as the same, because what it has subscribed was for that one.
    pub fn admit(&mut self, who: Principal) -> Result<(), Refusal> {
        if let Some(before) = &self.who {
            if (&before.role, &before.subject) != (&who.role, &who.subject) {
                self.gateway.metrics.refuse("other_subject");
                return Err(Code::OtherSubject.because("the token is another subject's, or another role's: open another connection for it"));
            }
        } else if let Some(subject) = &who.subject {
            self.of_subject = self.gateway.of_subject.take(subject.clone());
            if self.of_subject.is_none() {
                self.gateway.metrics.refuse("sockets_of_subject");
                return Err(Code::TooMany.because("this subject has as many connections as it may"));
            }
        }
        let settings = &self.gateway.settings;
        let left = u64::try_from(who.until_s.saturating_sub(clock::now_s())).unwrap_or(0);
        let left = Duration::from_secs(left).min(settings.max_age);
        self.ends = Instant::now() + left;
        let before = settings.expiring_before.min(left / 2);
        self.expiring = Some(self.ends - before);
        *lock(&self.entry.who) = Some(who.clone());
        let is_renewal = self.who.replace(who).is_some();
        if is_renewal {
            let tags: Vec<Tag> = self.subscribed.keys().copied().collect();
            tags.into_iter().for_each(|tag| self.ask(tag));
        }
        Ok(())
    }

    pub fn redeem(&mut self, ticket: String) {
        let (source, limit) = (
            self.gateway.source.clone(),
            self.gateway.settings.ask_timeout,
        );
        self.asks.push(Box::pin(async move {
            Asked::Redeemed(within(limit, source.redeem(ticket)).await)
        }));
    }

    /// Whether more is asked of the database than one connection may have under way.
    pub fn is_busy(&self) -> bool {
        self.asks.len() >= self.gateway.settings.max_subscriptions
    }

    pub fn subscribe(&mut self, request: Request) -> Result<(), Refusal> {
        let Some(who) = &self.who else {
            return Err(Code::Unauthenticated.because("send a token or a ticket first"));
        };
        if self.subscribed.len() >= self.gateway.settings.max_subscriptions {
            self.gateway.metrics.refuse("subscriptions");
            return Err(
                Code::TooMany.because("this connection has as many subscriptions as it may")
            );
        }
        if self.subscribed.contains_key(&request.tag) {
            return Err(
                Code::Taken.because(format!("there is a subscription {} already", request.tag))
            );
        }
        let own = |pattern: &Pattern| pattern.of_subject(who.subject.as_deref());
        let topics: Option<Option<Vec<Pattern>>> = request
            .topics
            .as_ref()
            .map(|topics| topics.iter().map(own).collect());
        if topics == Some(None) {
            return Err(Code::BadTopic.because("there is no subject that {sub} could stand for"));
        }
        let is_room = matches!(topics.as_ref().and_then(Option::as_deref), Some([one]) if one.exact().is_some());
        if request.presence && !(is_room && who.subject.is_some()) {
            return Err(Code::NoPresence
                .because("presence is for a subject, in one topic without patterns"));
        }
        let tag = request.tag;
        let request = Request {
            topics: topics.flatten(),
            ..request
        };
        let subscribed = Subscribed {
            request,
            key: None,
            asked: 0,
            room: None,
            is_told_live: false,
        };
        self.subscribed.insert(tag, subscribed);
        self.ask(tag);
        Ok(())
    }

    /// Asks the server whether this subscription may be.
    fn ask(&mut self, tag: Tag) {
        let (Some(who), Some(subscribed)) = (&self.who, self.subscribed.get_mut(&tag)) else {
            return;
        };
        self.last_ask += 1;
        let number = self.last_ask;
        subscribed.asked = number;
        let topics = subscribed.request.topics.iter().flatten();
        let ask = Ask {
            role: who.role.clone(),
            subject: who.subject.clone(),
            channel: subscribed.request.channel.clone(),
            topics: topics.map(ToString::to_string).collect(),
        };
        let (gateway, limit) = (self.gateway.clone(), self.gateway.settings.ask_timeout);
        self.asks.push(Box::pin(async move {
            let since = Instant::now();
            let verdict = within(limit, gateway.source.authorize(ask)).await;
            gateway
                .metrics
                .authorize
                .observe(since.elapsed().as_secs_f64());
            Asked::Verdict(tag, number, verdict)
        }));
    }

    pub fn unsubscribe(&mut self, tag: Tag) -> Option<Cursor> {
        self.catching.remove(&tag);
        lock(&self.entry.channels).remove(&tag);
        let subscribed = self.subscribed.remove(&tag)?;
        let key = subscribed.key?;
        if let (Some(room), Some(subject)) = (
            &subscribed.room,
            self.who.as_ref().and_then(|who| who.subject.as_deref()),
        ) {
            self.gateway.presence.leave(room, subject, key);
        }
        if self.replay.as_ref().is_some_and(|replay| replay.tag == tag) {
            self.replay = None;
        }
        self.gateway.hub.unsubscribe(key)
    }

    pub fn take(&self, max: usize) -> Vec<Item> {
        self.outbox.take(max)
    }

    fn refuse(&mut self, tag: Tag, refusal: &Refusal) {
        self.unsubscribe(tag);
        self.gateway.metrics.refuse(refusal.code.word());
        self.outbox.answer(message::error(Some(tag), refusal));
        if self.is_single {
            let close = match refusal.code {
                Code::Unavailable => close::UNAVAILABLE,
                _ => close::DENIED,
            };
            self.outbox.close(close);
            self.refused = Some(refusal.clone());
        }
    }

    fn hear(&mut self, asked: Asked) {
        match asked {
            Asked::Redeemed(redeemed) => self.hear_redeemed(redeemed),
            Asked::Verdict(tag, number, verdict) => {
                if self
                    .subscribed
                    .get(&tag)
                    .is_none_or(|one| one.asked != number)
                {
                    return;
                }
                match verdict {
                    Ok(Verdict::Allowed { channel, since }) => {
                        self.allow(tag, channel, since.as_deref())
                    }
                    Ok(Verdict::Refused { reason }) => {
                        self.refuse(tag, &Code::Denied.because(reason))
                    }
                    Err(error) => {
                        self.gateway.say(&error.to_string());
                        self.refuse(
                            tag,
                            &Code::Unavailable.because("the database does not answer"),
                        );
                    }
                }
            }
        }
    }

    fn hear_redeemed(&mut self, redeemed: Result<Option<Redeemed>, SourceError>) {
        let max_age = self.gateway.settings.max_age;
        let who = match redeemed {
            Err(_) => Err(Code::Unavailable.because("the database does not answer")),
            Ok(ticket) => {
                let who =
                    ticket.and_then(|ticket| Principal::of_ticket(ticket, max_age, clock::now_s()));
                who.ok_or_else(|| {
                    Code::Unauthenticated.because("the ticket was used, or its time is over")
                })
            }
        };
        let admitted = who.and_then(|who| {
            let until_s = who.until_s;
            self.admit(who).map(|()| until_s)
        });
        match admitted {
            Ok(until_s) => self.outbox.answer(message::authenticated(until_s)),
            Err(refusal) => {
                self.gateway.metrics.refuse(refusal.code.word());
                self.outbox.answer(message::error(None, &refusal));
                if self.who.is_none() {
                    self.outbox.close(match refusal.code {
                        Code::Unavailable => close::UNAVAILABLE,
                        Code::TooMany => close::TOO_MANY,
                        _ => close::UNAUTHENTICATED,
                    });
                }
            }
        }
    }

    fn allow(&mut self, tag: Tag, channel: String, since: Option<&str>) {
        let since = match since.map(str::parse::<Cursor>) {
            None => None,
            Some(Ok(since)) => Some(since),
            Some(Err(_)) => {
                return self.refuse(
                    tag,
                    &Code::Unavailable.because("the database says a cursor that is none"),
                )
            }
        };
        let Some(subscribed) = self.subscribed.get_mut(&tag) else {
            return;
        };
        let scope = self.who.as_ref().and_then(|who| who.scope.as_ref());
        if scope.is_some_and(|scope| !scope.covers(&channel, subscribed.request.topics.as_deref()))
        {
            return self.refuse(tag, &Code::Denied.because("the ticket is not for this"));
        }
        if let Some(key) = subscribed.key {
            if self.gateway.hub.resume(key, since).is_err() {
                // There is room as soon as something was written: asked again then.
                self.outbox.command(Command::Recheck(tag));
            }
            self.catching.insert(tag);
            return;
        }
        let request = &subscribed.request;
        let mut after = request.after;
        if let (Some(asked), Some(since)) = (after, since) {
            if asked < since {
                // What was said before somebody was let in is told as missing.
                if self.outbox.push_resync(tag, since).is_err() {
                    self.outbox.command(Command::Recheck(tag));
                    return;
                }
                after = Some(since);
            }
        }
        let wants = Wants {
            channel: channel.as_str().into(),
            topics: request.topics.clone(),
        };
        let is_live = after.is_none();
        let announce = |cursor| {
            self.outbox
                .answer(message::subscribed(tag, &channel, cursor, is_live))
        };
        let Some(key) =
            self.gateway
                .hub
                .subscribe(&self.outbox, tag, wants, request.latest, after, announce)
        else {
            return self.refuse(
                tag,
                &Code::Unavailable.because("the database was not reached yet"),
            );
        };
        subscribed.key = Some(key);
        subscribed.is_told_live = is_live;
        let shown = request
            .topics
            .iter()
            .flatten()
            .map(ToString::to_string)
            .collect();
        lock(&self.entry.channels).insert(tag, (channel.clone(), shown));
        if request.presence {
            self.enter(tag, key, &channel);
        }
        if !is_live {
            self.catching.insert(tag);
        }
    }

    fn enter(&mut self, tag: Tag, key: Key, channel: &str) {
        let subject = self.who.as_ref().and_then(|who| who.subject.clone());
        let Some(subscribed) = self.subscribed.get_mut(&tag) else {
            return;
        };
        let topic = subscribed
            .request
            .topics
            .as_ref()
            .and_then(|topics| topics.first()?.exact());
        let (Some(subject), Some(topic)) = (subject, topic) else {
            return;
        };
        let room = Room {
            channel: channel.into(),
            topic: topic.into(),
        };
        match self
            .gateway
            .presence
            .enter(&room, &subject, key, &self.outbox, tag)
        {
            Ok(state) => {
                self.outbox.answer(state);
                subscribed.room = Some(room);
            }
            Err(_) => {
                self.gateway.metrics.refuse("presence");
                self.outbox.answer(message::error(
                    Some(tag),
                    &Code::NoPresence.because("the room is full, or there are too many"),
                ));
            }
        }
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

    /// Leads on those that are behind; whether the same can be done again at once.
    fn catch_up(&mut self) -> bool {
        let mut has_more = false;
        let catching: Vec<Tag> = self.catching.iter().copied().collect();
        for tag in catching {
            let Some(key) = self.subscribed.get(&tag).and_then(|one| one.key) else {
                self.catching.remove(&tag);
                continue;
            };
            if self.replay.as_ref().is_some_and(|replay| replay.tag == tag) {
                continue;
            }
            match self.gateway.hub.catch_up(key) {
                Step::More => has_more = true,
                Step::Room => {}
                Step::Lost(cursor) => self.outbox.close(too_slow(cursor)),
                Step::Ask(after) if self.replay.is_none() => {
                    self.replay = Some(self.replay(tag, key, after))
                }
                Step::Ask(_) => {}
                Step::Done => {
                    self.catching.remove(&tag);
                    self.empty_replays = 0;
                    let is_live = self.gateway.hub.is_live(key);
                    if let Some(subscribed) = self
                        .subscribed
                        .get_mut(&tag)
                        .filter(|one| is_live && !one.is_told_live)
                    {
                        subscribed.is_told_live = true;
                        self.outbox.answer(message::live(tag));
                    }
                }
            }
        }
        has_more
    }

    fn replay(&self, tag: Tag, key: Key, after: Cursor) -> Replay {
        let gateway = self.gateway.clone();
        gateway.metrics.replays.inc();
        let pause = Duration::from_millis(100) * self.empty_replays;
        let answer = async move {
            tokio::time::sleep(pause).await;
            let away = || SourceError::Away("the gateway ends".to_owned());
            let _permit = gateway
                .replays
                .clone()
                .acquire_owned()
                .await
                .map_err(|_| away())?;
            within(
                gateway.settings.ask_timeout,
                gateway.source.read(Reader::Replay, after, REPLAYED),
            )
            .await
        };
        Replay {
            key,
            tag,
            after,
            answer: Box::pin(answer),
        }
    }

    fn hear_replay(&mut self, chunk: Result<Chunk, SourceError>) {
        let Some(replay) = self.replay.take() else {
            return;
        };
        match chunk {
            Ok(chunk) => {
                let is_empty = chunk.events.is_empty() && chunk.next == replay.after;
                self.empty_replays = if is_empty { self.empty_replays + 1 } else { 0 };
                self.gateway.hub.offer(replay.key, replay.after, &chunk);
            }
            Err(error) => {
                self.gateway.say(&error.to_string());
                self.empty_replays = MOST_EMPTY;
            }
        }
        if self.empty_replays >= MOST_EMPTY {
            self.outbox.close(close::UNAVAILABLE.at(replay.after));
        }
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
            if let Some(out) = self.end(Instant::now()) {
                return out;
            }
            let items = self.outbox.take(self.batch);
            if !items.is_empty() {
                self.wrote(Instant::now());
                return Out::Items(items);
            }
            if let Some(close) = self.outbox.closed() {
                return Out::Close(close);
            }
            let has_more = self.catch_up();
            if !self.outbox.is_empty() || self.outbox.closed().is_some() {
                continue;
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
