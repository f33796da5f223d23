//! What a prepared transaction makes ready with its end, noted when it is prepared, where that is all it brings: then whoever sees the end
//! announces it as a commit does, and nobody looks for it among all jobs.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use super::database::{DatabaseSlot, NEVER};
use super::queue_slot::{QueueKey, NOTHING, PRIORITIES};
use super::Shared;

/// Queues and priorities that are noted of a transaction; of one with more a sweep finds what it has brought.
const MOST: usize = 8;

/// The first position that becomes ready, or free, of a queue and priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    pub key: QueueKey,
    pub priority: usize,
    pub position: u64,
}

/// What may be ready once the transaction has ended, whichever way: a look too many does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyAtEnd {
    firsts: [Option<First>; MOST],
    /// The earliest time (µs) for which a job waits; NEVER: none does.
    pub waiting_from: i64,
    /// Events were written to the log.
    pub logged: bool,
}

impl ReadyAtEnd {
    pub fn new(waiting_from: i64, logged: bool) -> Self {
        Self {
            firsts: [None; MOST],
            waiting_from,
            logged,
        }
    }

    /// False: there are too many.
    pub fn add(&mut self, first: First) -> bool {
        let is_same = |place: &First| (place.key, place.priority) == (first.key, first.priority);
        // Places are taken from the beginning on.
        for place in &mut self.firsts {
            match place {
                Some(there) if is_same(there) => {
                    there.position = there.position.min(first.position);
                    return true;
                }
                Some(_) => {}
                None => {
                    *place = Some(first);
                    return true;
                }
            }
        }
        false
    }

    pub fn firsts(&self) -> impl Iterator<Item = First> + '_ {
        self.firsts.iter().map_while(|first| *first)
    }
}

/// What a transaction brings that is prepared.
#[expect(clippy::large_enum_variant)] // one at a time, and nothing is allocated for it at the end of a transaction
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brings {
    /// It has nothing to do with Pushy.
    Nothing,
    Ready(ReadyAtEnd),
    /// More, or nobody knows what: declarations, jobs that are done, more than is noted.
    Anything,
}

/// The same in shared memory.
#[repr(C)]
pub struct BringsCell {
    kind: AtomicU32,
    logged: AtomicBool,
    waiting_from: AtomicI64,
    firsts: [FirstCell; MOST],
}

#[repr(C)]
struct FirstCell {
    key: AtomicU64,
    position: AtomicU64,
    priority: AtomicU32,
}

const ANYTHING: u32 = 0;
const NO_MORE: u32 = 1;
const READY: u32 = 2;

impl BringsCell {
    /// As the next, under the lock of whose cell it is part.
    pub fn set(&self, brings: &Brings) {
        let kind = match brings {
            Brings::Anything => ANYTHING,
            Brings::Nothing => NO_MORE,
            Brings::Ready(ready) => {
                self.set_ready(ready);
                READY
            }
        };
        self.kind.store(kind, Ordering::SeqCst);
    }

    fn set_ready(&self, ready: &ReadyAtEnd) {
        self.logged.store(ready.logged, Ordering::Relaxed);
        self.waiting_from
            .store(ready.waiting_from, Ordering::Relaxed);
        for (cell, first) in self.firsts.iter().zip(ready.firsts) {
            let position = first.map_or(NOTHING, |first| first.position);
            cell.position.store(position, Ordering::Relaxed);
            if let Some(first) = first {
                cell.key.store(first.key.packed(), Ordering::Relaxed);
                cell.priority
                    .store(first.priority as u32, Ordering::Relaxed);
            }
        }
    }

    pub fn get(&self) -> Brings {
        match self.kind.load(Ordering::SeqCst) {
            NO_MORE => Brings::Nothing,
            READY => Brings::Ready(self.ready()),
            _ => Brings::Anything,
        }
    }

    fn ready(&self) -> ReadyAtEnd {
        let waiting_from = self.waiting_from.load(Ordering::Relaxed);
        let mut ready = ReadyAtEnd::new(waiting_from, self.logged.load(Ordering::Relaxed));
        for (first, cell) in ready.firsts.iter_mut().zip(&self.firsts) {
            let position = cell.position.load(Ordering::Relaxed);
            let priority = cell.priority.load(Ordering::Relaxed) as usize;
            *first = (position != NOTHING && priority < PRIORITIES).then(|| First {
                key: QueueKey::unpacked(cell.key.load(Ordering::Relaxed)),
                priority,
                position,
            });
        }
        ready
    }
}

impl Shared {
    /// The slots of its queues; None where one has none, which may be gone: then somebody looks.
    pub fn slots_of(&self, ready: &ReadyAtEnd) -> Option<[usize; MOST]> {
        let mut slots = [0; MOST];
        for (slot, first) in slots.iter_mut().zip(ready.firsts()) {
            *slot = self.find_queue(first.key)?;
        }
        Some(slots)
    }

    /// Announces it, as the commit of its transaction would have; false where a queue has no slot.
    pub fn announce_ready_at_end(&self, database: &DatabaseSlot, ready: &ReadyAtEnd) -> bool {
        let Some(slots) = self.slots_of(ready) else {
            return false;
        };
        if database.witness() {
            self.call_launcher_to(database);
        }
        for (slot, first) in slots.iter().zip(ready.firsts()) {
            self.announce(*slot, first.key, first.priority, first.position);
            self.wake_for(*slot);
        }
        if ready.waiting_from != NEVER {
            // Before the scheduler is woken: it looks from there on.
            database.announce_waiting(ready.waiting_from);
            self.announce_due(database, ready.waiting_from);
        }
        if ready.logged {
            self.announce_logged(database, false);
        }
        true
    }
}
