//! One slot per watch that has fired since the server started: how much it has published.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use pushy_core::share;

use super::Shared;
use crate::pg::clock;
use crate::pg::value::Timestamp;

/// Watches of the whole cluster that are counted; those beyond, and beyond the share of a role, work all the same.
pub const MAX_WATCHES: usize = 8192;

#[repr(C)]
pub struct WatchSlot {
    /// The database in the upper half, the watch in the lower; 0: free.
    key: AtomicU64,
    /// Who made the watch.
    owner: AtomicU32,
    pub notices: AtomicU64,
    pub jobs: AtomicU64,
    pub errors: AtomicU64,
    /// µs; 0: never.
    pub last_fired_at: AtomicI64,
    pub last_error_at: AtomicI64,
}

fn key(database: u32, watch_id: i32) -> u64 {
    u64::from(database) << 32 | u64::from(watch_id as u32)
}

impl WatchSlot {
    /// For another watch, made by `maker`.
    fn start(&self, maker: u32) {
        let Self {
            key: _,
            owner,
            notices,
            jobs,
            errors,
            last_fired_at,
            last_error_at,
        } = self;
        for counter in [notices, jobs, errors] {
            counter.store(0, Ordering::Relaxed);
        }
        for time in [last_fired_at, last_error_at] {
            time.store(0, Ordering::Relaxed);
        }
        owner.store(maker, Ordering::Relaxed);
    }

    /// Gives the slot up, if it is this watch's still.
    fn free(&self, key: u64) {
        let _ = self
            .key
            .compare_exchange(key, 0, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn count(&self, [notices, jobs, errors]: [u64; 3], now: Timestamp) {
        self.notices.fetch_add(notices, Ordering::Relaxed);
        self.jobs.fetch_add(jobs, Ordering::Relaxed);
        self.errors.fetch_add(errors, Ordering::Relaxed);
        if notices + jobs > 0 {
            self.last_fired_at.store(now.0, Ordering::Relaxed);
        }
        if errors > 0 {
            self.last_error_at.store(now.0, Ordering::Relaxed);
        }
    }
}

impl Shared {
    /// The slot of a watch of this database, if it has fired.
    pub fn find_watch(&self, watch_id: i32) -> Option<&WatchSlot> {
        let key = key(crate::pg::database::current(), watch_id);
        self.find_watch_slot(key).map(|at| &self.watches[at])
    }

    /// The number of the slot of a watch, taken if need be; None when all are, or when its maker has its share of them.
    pub fn ensure_watch(&self, watch_id: i32, owner: u32, is_bounded: bool) -> Option<usize> {
        let key = key(crate::pg::database::current(), watch_id);
        if let Some(found) = self.find_watch_slot(key) {
            return Some(found);
        }
        let taken = self
            .watch_slots
            .with(|| self.take_watch_slot(key, owner, is_bounded))?;
        if let Some(place) = self.find_database(crate::pg::database::current()) {
            place.watch_numbers.pass_over(watch_id.into());
        }
        Some(taken)
    }

    fn find_watch_slot(&self, wanted: u64) -> Option<usize> {
        self.watches
            .iter()
            .position(|slot| slot.key.load(Ordering::Acquire) == wanted)
    }

    /// With the lock of the watches' slots: one look at each.
    fn take_watch_slot(&self, wanted: u64, owner: u32, is_bounded: bool) -> Option<usize> {
        let (mut own, mut free, mut first_free) = (0, 0, None);
        for (at, slot) in self.watches.iter().enumerate() {
            match slot.key.load(Ordering::Acquire) {
                found if found == wanted => return Some(at),
                0 => {
                    free += 1;
                    first_free = first_free.or(Some(at));
                }
                _ if slot.owner.load(Ordering::Relaxed) == owner => own += 1,
                _ => {}
            }
        }
        let taken = first_free?;
        if is_bounded && !share::may_take(own, free) {
            return None;
        }
        let slot = &self.watches[taken];
        slot.start(owner);
        slot.key.store(wanted, Ordering::Release);
        Some(taken)
    }

    /// Adds notices, jobs and errors to the counts of a watch of this database, if the slot is its own still.
    /// May be called in commit callbacks.
    pub fn count_watch(&self, watch_id: i32, slot: usize, counts: [u64; 3], now: Timestamp) {
        let slot = &self.watches[slot];
        if slot.key.load(Ordering::Acquire) == key(crate::pg::database::current(), watch_id) {
            slot.count(counts, now);
        }
    }

    /// The watches of this database that have a slot and have counted something there: they were committed.
    pub fn watches_of_slots(&self) -> Vec<i32> {
        let database = u64::from(crate::pg::database::current());
        let counts = self.watches.iter().filter_map(|slot| {
            let has_counted = [&slot.last_fired_at, &slot.last_error_at]
                .iter()
                .any(|at| at.load(Ordering::Relaxed) != 0);
            let key = slot.key.load(Ordering::Acquire);
            (has_counted && key >> 32 == database).then_some(key as u32 as i32)
        });
        counts.collect()
    }

    /// Gives up the slot of a watch of this database, if it has one. May be called in commit callbacks.
    pub fn free_watch(&self, watch_id: i32) {
        if let Some(slot) = self.find_watch(watch_id) {
            slot.free(key(crate::pg::database::current(), watch_id));
        }
    }

    /// Gives up the slots of a database's watches: it, or the extension in it, is gone.
    pub fn free_watches_of(&self, database: u32) {
        for slot in &self.watches {
            let key = slot.key.load(Ordering::Acquire);
            if key >> 32 == u64::from(database) {
                slot.free(key);
            }
        }
    }
}

/// A time of a slot as a value: None for never.
pub fn time(at: &AtomicI64) -> Option<Timestamp> {
    let at = at.load(Ordering::Relaxed);
    (at != 0).then_some(Timestamp(at.min(clock::now().0)))
}
