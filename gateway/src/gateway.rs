//! What all connections share.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio::sync::{watch, Semaphore};

use crate::clock;
use crate::hub::outbox::Outbox;
use crate::hub::Hub;
use crate::limits::{Counts, Rate, Rates};
use crate::lock;
use crate::metrics::Metrics;
use crate::presence::Presence;
use crate::report::Changes;
use crate::settings::Settings;
use crate::source::Source;
use crate::topics::pattern::Pattern;
use crate::ways::close::{self, Close};
use crate::who::{Principal, Who};

/// What one subscription of a socket reads.
#[derive(Clone)]
pub struct Reads {
    pub channel: Arc<str>,
    /// None: all of the channel.
    pub topics: Option<Arc<[Pattern]>>,
}

impl Reads {
    fn has_topic(&self, topic: &str) -> bool {
        let topics = self.topics.iter().flat_map(|topics| topics.iter());
        topics.map(ToString::to_string).any(|own| own == topic)
    }
}

pub struct SocketEntry {
    pub transport: &'static str,
    pub address: IpAddr,
    pub since_us: i64,
    pub outbox: Arc<Outbox>,
    pub sent: AtomicU64,
    pub who: Mutex<Option<Principal>>,
    /// By the client's number.
    pub channels: Mutex<BTreeMap<u32, Reads>>,
}

pub struct Gateway {
    pub settings: Settings,
    pub source: Arc<dyn Source>,
    pub hub: Hub,
    pub who: Who,
    pub presence: Presence,
    pub changes: Changes,
    pub metrics: Metrics,
    pub connections: Counts<IpAddr>,
    pub of_subject: Counts<String>,
    pub rates: Rates,
    pub replays: Arc<Semaphore>,
    pub asks: Arc<Semaphore>,
    /// True once it is to stop.
    pub stopping: watch::Sender<bool>,
    has_failed: AtomicBool,
    sockets: Mutex<HashMap<u64, Arc<SocketEntry>>>,
    last_socket: AtomicU64,
    last_said: Mutex<Option<(Instant, String)>>,
}

impl Gateway {
    pub fn new(settings: Settings, source: Arc<dyn Source>) -> Arc<Self> {
        let s = &settings;
        let changes = Changes::default();
        Arc::new(Self {
            hub: Hub::new(s.recent_notices, s.recent_bytes)
                .bounded(s.all_buffer_bytes, s.all_topic_bytes),
            who: Who::default(),
            presence: Presence::new(
                s.presence_debounce,
                s.max_rooms,
                s.max_members,
                changes.moved.clone(),
            ),
            changes,
            metrics: Metrics::default(),
            connections: Counts::new(s.max_connections_per_address),
            of_subject: Counts::new(s.max_sockets_per_subject),
            rates: Rates::new(Rate::new(s.connect_rate, s.connect_burst)),
            replays: Arc::new(Semaphore::new(s.max_replays)),
            asks: Arc::new(Semaphore::new(s.max_asks)),
            stopping: watch::Sender::new(false),
            has_failed: AtomicBool::new(false),
            sockets: Mutex::default(),
            last_socket: AtomicU64::new(0),
            last_said: Mutex::default(),
            source,
            settings,
        })
    }

    /// A line for the operator; the same one not more than once in ten seconds. What somebody sent, secrets above all, is in none.
    pub fn say(&self, line: &str) {
        let mut last = lock(&self.last_said);
        let is_repeated = last
            .as_ref()
            .is_some_and(|(at, said)| said == line && at.elapsed().as_secs() < 10);
        if !is_repeated {
            // Nobody may be there to read it.
            let _ = writeln!(
                std::io::stderr(),
                "{} pushy-gateway: {line}",
                clock::iso(clock::now_us())
            );
            *last = Some((Instant::now(), line.to_owned()));
        }
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Stops it because of a fault of its own.
    pub fn fail(&self) {
        self.has_failed.store(true, Ordering::Relaxed);
        self.stop();
    }

    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    pub fn register(&self, entry: Arc<SocketEntry>) -> u64 {
        let id = self.last_socket.fetch_add(1, Ordering::Relaxed) + 1;
        lock(&self.sockets).insert(id, entry);
        self.changes.moved.notify_one();
        id
    }

    pub fn forget(&self, id: u64) {
        lock(&self.sockets).remove(&id);
        self.changes.moved.notify_one();
    }

    /// Those that are open, by their numbers.
    pub fn sockets(&self) -> Vec<(u64, Arc<SocketEntry>)> {
        let all = lock(&self.sockets);
        let mut all: Vec<_> = all.iter().map(|(id, one)| (*id, one.clone())).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }

    /// Closes those of a subject, channel and topic, as far as these are said; how many.
    pub fn close_sockets(
        &self,
        subject: Option<&str>,
        channel: Option<&str>,
        topic: Option<&str>,
    ) -> usize {
        if subject.is_none() && channel.is_none() {
            return 0;
        }
        let is_meant = |entry: &Arc<SocketEntry>| {
            let own = lock(&entry.who)
                .as_ref()
                .and_then(|who| who.subject.clone());
            let is_subject = subject.is_none_or(|subject| own.as_deref() == Some(subject));
            let reads = |own: &Reads| {
                channel.is_none_or(|channel| *own.channel == *channel)
                    && topic.is_none_or(|topic| own.has_topic(topic))
            };
            is_subject && (channel.is_none() || lock(&entry.channels).values().any(reads))
        };
        self.close_where(is_meant, &close::CLOSED_BY_SERVER)
    }

    /// Those whose token was signed by a key that is gone.
    pub fn recheck_tokens(&self) -> usize {
        let is_meant = |entry: &Arc<SocketEntry>| {
            let who = lock(&entry.who);
            let key = who.as_ref().and_then(|who| who.key.as_deref());
            key.is_some_and(|key| !self.who.has_key(key))
        };
        self.close_where(is_meant, &close::UNAUTHENTICATED)
    }

    fn close_where(&self, is_meant: impl Fn(&Arc<SocketEntry>) -> bool, close: &Close) -> usize {
        let meant: Vec<Arc<SocketEntry>> = lock(&self.sockets)
            .values()
            .filter(|entry| is_meant(entry))
            .cloned()
            .collect();
        meant
            .iter()
            .for_each(|entry| entry.outbox.close(close.clone()));
        meant.len()
    }

    /// Tells each socket to go and come back: not all at the same moment.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
        let spread_ms = u64::try_from(self.settings.drain.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        for entry in lock(&self.sockets).values() {
            entry
                .outbox
                .close(close::GOING_AWAY.after_ms(fastrand::u64(0..spread_ms)));
        }
    }

    /// The gauges, as they are now.
    pub fn measure(&self) {
        let as_i64 = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.connections.set(as_i64(self.connections.total()));
        metrics.subscriptions.set(as_i64(self.hub.subscriptions()));
        metrics.buffered_bytes.set(as_i64(self.hub.buffered()));
        metrics.ring_bytes.set(as_i64(self.hub.ring_bytes()));
        let counted = metrics.deliveries.get();
        metrics
            .deliveries
            .inc_by(self.hub.deliveries().saturating_sub(counted));
    }
}
