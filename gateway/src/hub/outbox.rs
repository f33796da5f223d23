//! What waits to be written to one socket. Bounded: who puts something in is told when there is no room.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pushy_core::log::cursor::Cursor;
use tokio::sync::Notify;

use crate::limits::Budget;
use crate::lock;
use crate::notice::Notice;
use crate::ways::close::Close;

/// The number that a client has given to its subscription.
pub type Tag = u32;

/// Something for the socket's own task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Who may read this was changed: ask again.
    Recheck(Tag),
    /// There was no room for what happened in its room: say anew who is there.
    PresenceAnew(Tag),
    /// There was no room for a notice: go on from the ring.
    CatchUp(Tag),
}

#[derive(Clone, Debug)]
pub enum Item {
    Notice {
        notice: Arc<Notice>,
        tag: Tag,
        /// Further subscriptions of the socket that want the same.
        more: Vec<Tag>,
    },
    Resync {
        tag: Tag,
        cursor: Cursor,
    },
    /// A message as it is.
    Message(Arc<str>),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Full;

#[derive(Default)]
struct Queue {
    /// What was replaced leaves its slot empty.
    slots: VecDeque<Option<Item>>,
    /// The number of the first slot.
    first: u64,
    live: usize,
    bytes: usize,
    /// Where the newest of a topic waits, for subscriptions that want but that.
    newest: HashMap<(Tag, Option<Box<str>>), u64>,
    commands: VecDeque<Command>,
    close: Option<Close>,
    /// Since when something waits.
    waiting_since: Option<Instant>,
}

pub struct Outbox {
    queue: Mutex<Queue>,
    ready: Notify,
    max_items: usize,
    max_bytes: usize,
    /// Of all sockets.
    buffered: Arc<Budget>,
}

/// What an item takes beside its text.
const OVERHEAD: usize = 64;
/// Bytes that are taken at a time: a stream writes these as one.
const MOST_TAKEN: usize = 262_144;
/// Bytes that a socket may have though all together have as much as they may: who reads hears on beside those that do not.
const SHARE: usize = 16_384;

fn size(item: &Item) -> usize {
    match item {
        Item::Notice { notice, .. } => notice.size(),
        Item::Resync { .. } => OVERHEAD,
        Item::Message(text) => text.len() + OVERHEAD,
    }
}

fn key_of(item: &Item) -> Option<(Tag, Option<Box<str>>)> {
    match item {
        Item::Notice { notice, tag, .. } => Some((*tag, notice.topic.clone())),
        _ => None,
    }
}

impl Queue {
    fn push(&mut self, item: Item) -> usize {
        let size = size(&item);
        self.bytes += size;
        self.live += 1;
        self.slots.push_back(Some(item));
        self.waiting_since.get_or_insert_with(Instant::now);
        size
    }

    fn next_number(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Takes away what an older notice of the topic has left; how many bytes.
    fn replace(&mut self, number: u64) -> usize {
        let slot = usize::try_from(number.wrapping_sub(self.first)).ok();
        let item = slot.and_then(|slot| self.slots.get_mut(slot)?.take());
        let freed = item.as_ref().map_or(0, size);
        if item.is_some() {
            self.live -= 1;
            self.bytes -= freed;
        }
        // The empty slots of a socket that is slow for long would be without bound.
        if self.slots.len() > 2 * self.live + 64 {
            self.compact();
        }
        freed
    }

    fn compact(&mut self) {
        let kept: VecDeque<Option<Item>> = std::mem::take(&mut self.slots)
            .into_iter()
            .filter(Option::is_some)
            .collect();
        self.first = 0;
        let is_conflated: Vec<_> = std::mem::take(&mut self.newest).into_keys().collect();
        for (number, item) in kept.iter().enumerate() {
            let key = item.as_ref().and_then(key_of);
            if let Some(key) = key.filter(|key| is_conflated.contains(key)) {
                self.newest.insert(key, number as u64);
            }
        }
        self.slots = kept;
    }
}

impl Outbox {
    pub fn new(max_items: usize, max_bytes: usize, buffered: Arc<Budget>) -> Self {
        Self {
            queue: Mutex::default(),
            ready: Notify::new(),
            max_items,
            max_bytes,
            buffered,
        }
    }

    /// One item of any size has room in an empty buffer.
    fn is_full(&self, queue: &Queue, size: usize) -> bool {
        let bytes = queue.bytes + size;
        let is_full = queue.live >= self.max_items
            || bytes > self.max_bytes
            || bytes > SHARE && self.buffered.is_full(size);
        is_full && queue.live > 0
    }

    /// Whether it is worth to read from afar what it is to hear.
    pub fn has_much_room(&self) -> bool {
        let queue = lock(&self.queue);
        let is_roomy = queue.live <= self.max_items / 2 && queue.bytes <= self.max_bytes / 2;
        is_roomy && !(queue.live > 0 && self.is_full(&queue, SHARE))
    }

    /// `latest`: what waits of the same topic for the same subscription is replaced.
    pub fn push_notice(&self, tag: Tag, notice: &Arc<Notice>, latest: bool) -> Result<(), Full> {
        let mut queue = lock(&self.queue);
        if queue.close.is_some() {
            return Ok(());
        }
        if latest {
            let key = (tag, notice.topic.clone());
            if let Some(number) = queue.newest.remove(&key) {
                let freed = queue.replace(number);
                self.buffered.sub(freed);
            }
        } else if let Some(Some(Item::Notice {
            notice: last,
            tag: first,
            more,
        })) = queue.slots.back_mut()
        {
            if last.cursor == notice.cursor && *first != tag {
                if !more.contains(&tag) {
                    more.push(tag);
                }
                return Ok(());
            }
        }
        if self.is_full(&queue, notice.size()) {
            return Err(Full);
        }
        if latest {
            let number = queue.next_number();
            queue.newest.insert((tag, notice.topic.clone()), number);
        }
        let item = Item::Notice {
            notice: notice.clone(),
            tag,
            more: Vec::new(),
        };
        self.buffered.add(queue.push(item));
        Ok(())
    }

    pub fn push_resync(&self, tag: Tag, cursor: Cursor) -> Result<(), Full> {
        self.push_bounded(Item::Resync { tag, cursor })
    }

    /// What others have caused: bounded as notices are.
    pub fn push_message(&self, text: Arc<str>) -> Result<(), Full> {
        self.push_bounded(Item::Message(text))
    }

    fn push_bounded(&self, item: Item) -> Result<(), Full> {
        let mut queue = lock(&self.queue);
        if queue.close.is_some() {
            return Ok(());
        }
        if self.is_full(&queue, size(&item)) {
            return Err(Full);
        }
        self.buffered.add(queue.push(item));
        Ok(())
    }

    /// An answer to the socket's own message: bounded by the rate of these, and read no faster than answers are written.
    pub fn answer(&self, text: Arc<str>) {
        let mut queue = lock(&self.queue);
        self.buffered.add(queue.push(Item::Message(text)));
    }

    /// Once each, so there are no more than subscriptions.
    pub fn command(&self, command: Command) {
        let mut queue = lock(&self.queue);
        if !queue.commands.contains(&command) {
            queue.commands.push_back(command);
        }
        drop(queue);
        self.ready.notify_one();
    }

    /// The first reason counts.
    pub fn close(&self, close: Close) {
        lock(&self.queue).close.get_or_insert(close);
        self.ready.notify_one();
    }

    pub fn wake(&self) {
        self.ready.notify_one();
    }

    pub async fn ready(&self) {
        self.ready.notified().await;
    }

    pub fn take(&self, max: usize) -> Vec<Item> {
        let mut queue = lock(&self.queue);
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < max && bytes < MOST_TAKEN {
            let Some(slot) = queue.slots.pop_front() else {
                break;
            };
            let number = queue.first;
            queue.first += 1;
            let Some(item) = slot else {
                continue;
            };
            if !queue.newest.is_empty() {
                if let Some(key) =
                    key_of(&item).filter(|key| queue.newest.get(key) == Some(&number))
                {
                    queue.newest.remove(&key);
                }
            }
            bytes += size(&item);
            queue.live -= 1;
            taken.push(item);
        }
        queue.bytes -= bytes;
        queue.waiting_since = (queue.live > 0).then(Instant::now);
        // A burst leaves no room behind that nobody uses.
        if queue.slots.is_empty() && queue.slots.capacity() > 64 {
            queue.slots = VecDeque::new();
        }
        self.buffered.sub(bytes);
        taken
    }

    pub fn take_command(&self) -> Option<Command> {
        lock(&self.queue).commands.pop_front()
    }

    /// Set once nothing waits before it.
    pub fn closed(&self) -> Option<Close> {
        let queue = lock(&self.queue);
        queue.close.clone().filter(|_| queue.live == 0)
    }

    pub fn is_empty(&self) -> bool {
        lock(&self.queue).live == 0
    }

    /// How many wait, how many bytes, and for how long the first.
    pub fn standing(&self) -> (usize, usize, f64) {
        let queue = lock(&self.queue);
        let waits = queue
            .waiting_since
            .map_or(0.0, |since| since.elapsed().as_secs_f64());
        (queue.live, queue.bytes, waits)
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let bytes = lock(&self.queue).bytes;
        self.buffered.sub(bytes);
    }
}
