//! From one reader of the log to all sockets: each notice once, in order, or a resync before what is missing.
//!
//! The protocol is in gateway/tests/join_model, which walks every interleaving of it. What the pump publishes is appended to the ring
//! and pushed in one hold of the lock; a subscription reads the ring up to its end and becomes live in one hold of the lock.

pub mod outbox;
pub mod pump;
mod rights;
pub mod ring;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pushy_core::log::cursor::Cursor;

use crate::limits::Budget;
use crate::lock;
use crate::notice::Notice;
use crate::source::{Chunk, Event};
use crate::topics::routes::{Key, Routes, Wants};

use outbox::{Command, Full, Outbox, Tag};
pub use rights::AskedAt;
use rights::Rights;
use ring::Ring;

/// Notices of the ring that are looked at in one hold of the lock.
const SCANNED: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Live,
    Catching,
    /// Its reader may not read any more, until somebody has said that it may.
    Paused,
}

struct Subscription {
    outbox: Arc<Outbox>,
    tag: Tag,
    wants: Wants,
    latest: bool,
    state: State,
    /// All that it wants of what is up to there was pushed.
    position: Cursor,
    /// Its reader may hear nothing of what is up to there, whatever the source says.
    floor: Cursor,
    /// It had no room, and goes on from the ring or not at all.
    was_live: bool,
    /// The source knows the position.
    is_vouched: bool,
    /// The resync of the pump that it was told last.
    generation: u64,
}

struct Inside {
    ring: Ring,
    routes: Routes,
    subscriptions: HashMap<Key, Subscription>,
    last_key: Key,
    /// How often the pump met a resync.
    generation: u64,
    /// Since the pump knows where it is.
    is_open: bool,
    rights: Rights,
}

/// Why nothing is read yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// The pump does not know where it is.
    Closed,
    /// Rights were changed since somebody asked for them: ask again.
    AskAgain,
    /// There is no room for what is to be said first.
    Full,
}

impl From<Full> for NotYet {
    fn from(_: Full) -> Self {
        Self::Full
    }
}

pub struct Hub {
    inside: Mutex<Inside>,
    buffered: Arc<Budget>,
    topics: Arc<Budget>,
    deliveries: AtomicU64,
}

/// What a subscription that catches up needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is live, or paused, or gone.
    Done,
    /// The same again.
    More,
    /// Room in its outbox.
    Room,
    /// What the source has after this cursor.
    Ask(Cursor),
    /// It was too slow, and is behind all that is here: to be closed.
    Lost(Cursor),
}

impl Subscription {
    fn push(&mut self, notice: &Arc<Notice>) -> Result<bool, Full> {
        if notice.cursor <= self.position {
            return Ok(false);
        }
        let is_wanted = self.wants.wants(&notice.channel, notice.topic.as_deref());
        if is_wanted && notice.is_too_long {
            self.outbox.push_resync(self.tag, notice.cursor)?;
        } else if is_wanted {
            self.outbox.push_notice(self.tag, notice, self.latest)?;
        }
        self.position = notice.cursor;
        Ok(is_wanted)
    }

    fn tell_resync(&mut self, at: Cursor) -> Result<(), Full> {
        let at = at.max(self.floor);
        self.outbox.push_resync(self.tag, at)?;
        self.position = at;
        Ok(())
    }

    fn falls_behind(&mut self) {
        self.outbox.command(Command::CatchUp(self.tag));
        self.state = State::Catching;
        self.was_live = true;
        self.is_vouched = false;
    }
}

impl Hub {
    pub fn new(ring_notices: usize, ring_bytes: usize) -> Self {
        let inside = Inside {
            ring: Ring::new(Cursor::START, ring_notices, ring_bytes),
            routes: Routes::default(),
            subscriptions: HashMap::new(),
            last_key: 0,
            generation: 0,
            is_open: false,
            rights: Rights::new(),
        };
        Self {
            inside: Mutex::new(inside),
            buffered: Arc::default(),
            topics: Arc::default(),
            deliveries: AtomicU64::new(0),
        }
    }

    /// How many bytes the buffers of all sockets may have, and their topics.
    pub fn bounded(self, buffered: usize, topics: usize) -> Self {
        Self {
            buffered: Arc::new(Budget::new(buffered)),
            topics: Arc::new(Budget::new(topics)),
            ..self
        }
    }

    /// The pump knows where it is: from here on nothing is missed.
    pub fn open(&self, at: Cursor) {
        let mut inside = lock(&self.inside);
        inside.ring.reset(at);
        inside.is_open = true;
    }

    pub fn is_open(&self) -> bool {
        lock(&self.inside).is_open
    }

    pub fn end(&self) -> Cursor {
        lock(&self.inside).ring.to()
    }

    pub fn ring_bytes(&self) -> usize {
        lock(&self.inside).ring.bytes()
    }

    pub fn subscriptions(&self) -> usize {
        lock(&self.inside).subscriptions.len()
    }

    pub fn buffered(&self) -> usize {
        self.buffered.used()
    }

    /// What the topics of all subscriptions take.
    pub fn topics(&self) -> &Arc<Budget> {
        &self.topics
    }

    pub fn deliveries(&self) -> u64 {
        self.deliveries.load(Ordering::Relaxed)
    }

    pub fn outbox(&self, max_items: usize, max_bytes: usize) -> Arc<Outbox> {
        Arc::new(Outbox::new(max_items, max_bytes, self.buffered.clone()))
    }

    /// To be noted before the server is asked who may read what.
    pub fn asked_at(&self) -> AskedAt {
        lock(&self.inside).rights.asked_at()
    }

    /// Without `after` it is live at once; else `catch_up` leads there. It hears nothing of what is up to `since`. Where it begins is
    /// announced before anything is pushed.
    #[expect(clippy::too_many_arguments, reason = "what a subscription is made of")]
    pub fn subscribe(
        &self,
        outbox: &Arc<Outbox>,
        tag: Tag,
        wants: Wants,
        latest: bool,
        after: Option<Cursor>,
        since: Option<Cursor>,
        asked_at: AskedAt,
        announce: impl FnOnce(Cursor),
    ) -> Result<Key, NotYet> {
        let mut inside = lock(&self.inside);
        if !inside.is_open {
            return Err(NotYet::Closed);
        }
        if !inside.rights.stand(&wants.channel, asked_at) {
            return Err(NotYet::AskAgain);
        }
        inside.last_key += 1;
        let key = inside.last_key;
        let floor = since.unwrap_or(Cursor::START);
        let position = after.unwrap_or(inside.ring.to()).max(floor);
        announce(position);
        let state = if after.is_none() {
            State::Live
        } else {
            State::Catching
        };
        if state == State::Live {
            inside.routes.insert(&wants, key);
        }
        let subscription = Subscription {
            outbox: outbox.clone(),
            tag,
            wants,
            latest,
            state,
            position,
            floor,
            was_live: false,
            is_vouched: false,
            generation: inside.generation,
        };
        inside.subscriptions.insert(key, subscription);
        Ok(key)
    }

    /// The cursor to come back with.
    pub fn unsubscribe(&self, key: Key) -> Option<Cursor> {
        let mut inside = lock(&self.inside);
        let subscription = inside.subscriptions.remove(&key)?;
        if subscription.state == State::Live {
            inside.routes.remove(&subscription.wants, key);
            return Some(subscription.position.max(inside.ring.to()));
        }
        Some(subscription.position)
    }

    /// Pushes what the pump has read to whom it concerns.
    pub fn publish(&self, events: &[Event], next: Cursor) {
        let mut woken: HashMap<*const Outbox, Arc<Outbox>> = HashMap::new();
        let mut keys = Vec::new();
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        for event in events {
            match event {
                Event::Resync(at) => inside.resync(*at, &mut woken),
                Event::Notice(notice) if notice.cursor > inside.ring.to() => {
                    let before = inside.ring.to();
                    inside.ring.append(notice.clone());
                    keys.clear();
                    inside
                        .routes
                        .each(&notice.channel, notice.topic.as_deref(), |key| {
                            keys.push(key)
                        });
                    for key in &keys {
                        inside.deliver(*key, notice, before, &mut woken, &self.deliveries);
                    }
                }
                Event::Notice(_) => {}
            }
        }
        inside.ring.advance(next);
        drop(guard);
        woken.values().for_each(|outbox| outbox.wake());
    }

    /// Leads a subscription on, as far as the ring does.
    pub fn catch_up(&self, key: Key) -> Step {
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        let Some(subscription) = inside
            .subscriptions
            .get_mut(&key)
            .filter(|one| one.state == State::Catching)
        else {
            return Step::Done;
        };
        let ring = &inside.ring;
        if subscription.generation != inside.generation {
            if subscription.tell_resync(ring.from()).is_err() {
                return Step::Room;
            }
            subscription.generation = inside.generation;
            (subscription.was_live, subscription.is_vouched) = (false, false);
            return Step::More;
        }
        let is_ahead = subscription.position > ring.to() && subscription.is_vouched;
        if !is_ahead && !ring.reaches(subscription.position) {
            if subscription.was_live {
                return Step::Lost(subscription.position);
            }
            return Step::Ask(subscription.position);
        }
        for (n, notice) in ring.after(subscription.position).enumerate() {
            if n == SCANNED {
                return Step::More;
            }
            match subscription.push(notice) {
                Ok(is_wanted) => {
                    self.deliveries
                        .fetch_add(u64::from(is_wanted), Ordering::Relaxed);
                }
                Err(Full) => return Step::Room,
            }
        }
        subscription.position = subscription.position.max(ring.to());
        subscription.state = State::Live;
        subscription.was_live = false;
        inside.routes.insert(&subscription.wants, key);
        Step::Done
    }

    /// What the source had after the cursor that was asked for.
    pub fn offer(&self, key: Key, after: Cursor, chunk: &Chunk) {
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        let is_asked =
            |one: &&mut Subscription| one.state == State::Catching && one.position == after;
        let Some(subscription) = inside.subscriptions.get_mut(&key).filter(is_asked) else {
            return;
        };
        if subscription.generation != inside.generation {
            return;
        }
        for event in &chunk.events {
            let pushed = match event {
                Event::Notice(notice) => subscription.push(notice),
                Event::Resync(at) => subscription.tell_resync(*at).map(|()| false),
            };
            match pushed {
                Ok(is_wanted) => {
                    self.deliveries
                        .fetch_add(u64::from(is_wanted), Ordering::Relaxed);
                }
                Err(Full) => return,
            }
        }
        subscription.position = chunk.next.max(subscription.position);
        subscription.is_vouched = true;
    }

    pub fn is_live(&self, key: Key) -> bool {
        let inside = lock(&self.inside);
        inside
            .subscriptions
            .get(&key)
            .is_some_and(|one| one.state == State::Live)
    }

    /// Who may read this channel (None: any) was changed: nobody reads on who was not asked again.
    pub fn recheck(&self, channel: Option<&str>) {
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        // Also for those whose verdict is on its way.
        inside.rights.change(channel);
        for (key, subscription) in &mut inside.subscriptions {
            if channel.is_some_and(|channel| *subscription.wants.channel != *channel) {
                continue;
            }
            if subscription.state == State::Live {
                inside.routes.remove(&subscription.wants, *key);
                subscription.position = subscription.position.max(inside.ring.to());
            }
            subscription.state = State::Paused;
            subscription
                .outbox
                .command(Command::Recheck(subscription.tag));
        }
    }

    /// Stops one until `resume`.
    pub fn pause(&self, key: Key) {
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        if let Some(subscription) = inside.subscriptions.get_mut(&key) {
            if subscription.state == State::Live {
                inside.routes.remove(&subscription.wants, key);
                subscription.position = subscription.position.max(inside.ring.to());
            }
            subscription.state = State::Paused;
        }
    }

    /// It may read on, from where it was; not before `since`.
    pub fn resume(&self, key: Key, since: Option<Cursor>, asked_at: AskedAt) -> Result<(), NotYet> {
        let mut guard = lock(&self.inside);
        let inside = &mut *guard;
        if let Some(subscription) = inside.subscriptions.get_mut(&key) {
            if !inside.rights.stand(&subscription.wants.channel, asked_at) {
                return Err(NotYet::AskAgain);
            }
            // Of a log that is another one by now, the source knows nothing.
            (subscription.floor, subscription.is_vouched) = (since.unwrap_or(Cursor::START), false);
            if let Some(since) = since.filter(|since| *since > subscription.position) {
                subscription.tell_resync(since)?;
            }
            if subscription.state == State::Paused {
                subscription.state = State::Catching;
                subscription.was_live = false;
            }
        }
        Ok(())
    }

    /// From where none of these misses anything. What waits in their outboxes counts as heard.
    pub fn earliest_position(&self, keys: impl Iterator<Item = Key>) -> Option<Cursor> {
        let inside = lock(&self.inside);
        let position = |key| {
            let one = inside.subscriptions.get(&key)?;
            Some(match one.state {
                State::Live => one.position.max(inside.ring.to()),
                State::Catching | State::Paused => one.position,
            })
        };
        keys.filter_map(position).min()
    }

    /// A cursor for all of these: each has had all before it. None while one is catching up.
    pub fn common_position(
        &self,
        keys: impl Iterator<Item = Key>,
        outbox: &Outbox,
    ) -> Option<Cursor> {
        let inside = lock(&self.inside);
        let mut all = keys.map(|key| {
            inside
                .subscriptions
                .get(&key)
                .filter(|one| one.state == State::Live)
        });
        let is_level = all.all(|one| one.is_some_and(|one| one.position <= inside.ring.to()));
        (is_level && outbox.is_empty()).then_some(inside.ring.to())
    }
}

impl Inside {
    fn deliver(
        &mut self,
        key: Key,
        notice: &Arc<Notice>,
        before: Cursor,
        woken: &mut HashMap<*const Outbox, Arc<Outbox>>,
        deliveries: &AtomicU64,
    ) {
        let Some(subscription) = self.subscriptions.get_mut(&key) else {
            return;
        };
        match subscription.push(notice) {
            Ok(is_wanted) => {
                deliveries.fetch_add(u64::from(is_wanted), Ordering::Relaxed);
            }
            Err(Full) => {
                subscription.position = subscription.position.max(before);
                subscription.falls_behind();
                self.routes.remove(&subscription.wants, key);
            }
        }
        woken
            .entry(Arc::as_ptr(&subscription.outbox))
            .or_insert_with(|| subscription.outbox.clone());
    }

    fn resync(&mut self, at: Cursor, woken: &mut HashMap<*const Outbox, Arc<Outbox>>) {
        self.ring.reset(at);
        self.generation += 1;
        for (key, subscription) in &mut self.subscriptions {
            woken
                .entry(Arc::as_ptr(&subscription.outbox))
                .or_insert_with(|| subscription.outbox.clone());
            if subscription.state != State::Live {
                continue;
            }
            match subscription.tell_resync(at) {
                Ok(()) => subscription.generation = self.generation,
                Err(Full) => {
                    subscription.falls_behind();
                    self.routes.remove(&subscription.wants, *key);
                }
            }
        }
    }
}
