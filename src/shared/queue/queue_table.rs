//! The slots of all queues: finding one, taking one, giving it up.

use super::queue_slot::{QueueFacts, QueueKey, QueueSlot, FREED, NEVER};
use crate::shared::database::Presence;
use crate::shared::Shared;
use pushy_core::standing::Standing;
use std::sync::atomic::Ordering;

impl Shared {
    /// The slots where a key may be, in the order in which it is looked for.
    fn probe(&self, key: QueueKey) -> impl Iterator<Item = (usize, &QueueSlot)> {
        let queues = self.queues();
        // Fibonacci hashing: neighbouring numbers land far apart.
        let hash = key.packed().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let home = (hash >> 32) as usize % queues.len();
        let (before, after) = queues.split_at(home);
        (home..queues.len())
            .zip(after)
            .chain(before.iter().enumerate())
    }

    /// The slot of a queue, if it has one.
    pub fn find_queue(&self, key: QueueKey) -> Option<usize> {
        for (index, slot) in self.probe(key) {
            match slot.key.load(Ordering::Acquire) {
                NEVER => return None,
                // Only its statistics are kept here: the queue has no slot yet since the server started.
                FREED if slot.kept_for.load(Ordering::Relaxed) == key.packed() => return None,
                packed if packed == key.packed() => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// A free slot for a queue that has none: the one with its statistics, or the first with nobody's.
    fn free_slot(&self, key: QueueKey) -> Option<usize> {
        let (mut of_nobody, mut of_another) = (None, None);
        for (index, slot) in self.probe(key) {
            match (
                slot.key.load(Ordering::Relaxed),
                slot.kept_for.load(Ordering::Relaxed),
            ) {
                (NEVER, _) => return of_nobody.or(Some(index)),
                (FREED, kept_for) if kept_for == key.packed() => return Some(index),
                (FREED, 0) => of_nobody = of_nobody.or(Some(index)),
                (FREED, _) => of_another = of_another.or(Some(index)),
                _ => {}
            }
        }
        of_nobody.or(of_another)
    }

    /// Keeps a slot for the statistics that a queue had before the server's restart; while no other process runs.
    pub(in crate::shared) fn keep_slot(&self, key: QueueKey, epoch: u32) -> Option<usize> {
        let is_new = |(_, slot): &(usize, &QueueSlot)| slot.key.load(Ordering::Relaxed) == NEVER;
        let (index, slot) = self.probe(key).find(is_new)?;
        slot.init();
        slot.epoch.store(epoch, Ordering::Relaxed);
        slot.kept_for.store(key.packed(), Ordering::Relaxed);
        slot.key.store(FREED, Ordering::Relaxed);
        Some(index)
    }

    /// Forgets statistics kept for queues of a database that have no slot: its queues all have slots, or are gone with it.
    pub fn forget_kept_of(&self, database: u32) {
        let is_of = |slot: &QueueSlot| {
            let kept_for = slot.kept_for.load(Ordering::Relaxed);
            kept_for != 0 && QueueKey::unpacked(kept_for).database == database
        };
        for slot in self.queues() {
            if is_of(slot) {
                self.slots.with(|| {
                    if is_of(slot) {
                        slot.kept_for.store(0, Ordering::Relaxed);
                    }
                });
            }
        }
    }

    /// The slot of a queue, made if need be; None when all are taken.
    pub fn ensure_queue(&self, facts: &QueueFacts) -> Option<usize> {
        if let Some(index) = self.find_queue(facts.key) {
            if self.queues()[index].epoch.load(Ordering::Acquire) == facts.epoch {
                return Some(index);
            }
        }
        let index = self.slots.with(|| {
            if let Some(index) = self.find_queue(facts.key) {
                let slot = &self.queues()[index];
                if slot.epoch.load(Ordering::Acquire) != facts.epoch {
                    self.statistics_of(index).reset();
                    slot.start(facts);
                }
                return Some(index);
            }
            let Some(index) = self.free_slot(facts.key) else {
                self.placeless.store(true, Ordering::SeqCst);
                return None;
            };
            let slot = &self.queues()[index];
            if slot.key.load(Ordering::Relaxed) == NEVER {
                slot.init();
            } else if slot.kept_for.swap(0, Ordering::Relaxed) != facts.key.packed()
                || slot.epoch.load(Ordering::Relaxed) != facts.epoch
            {
                self.statistics_of(index).reset();
            }
            slot.start(facts);
            slot.key.store(facts.key.packed(), Ordering::Release);
            self.queues_taken.fetch_add(1, Ordering::SeqCst);
            Some(index)
        })?;
        self.set_ready(index);
        if let Some(database_slot) = self.find_database(facts.key.database) {
            let number = facts.key.queue_id.into();
            database_slot.queue_numbers.pass_over(number);
        }
        Some(index)
    }

    /// How many queues of a role have a slot, in all databases.
    pub fn queues_of(&self, owner: u32) -> i64 {
        let is_its =
            |slot: &&QueueSlot| slot.key().is_some() && slot.owner.load(Ordering::SeqCst) == owner;
        self.queues().iter().filter(is_its).count() as i64
    }

    /// Gives up the slot of a dropped queue, and wakes who waits there.
    pub fn free_queue(&self, key: QueueKey) {
        let freed = self.slots.with(|| {
            let index = self.find_queue(key)?;
            let slot = &self.queues()[index];
            slot.set_standing(Standing::DROPPED);
            slot.key.store(FREED, Ordering::Release);
            self.queues_taken.fetch_sub(1, Ordering::SeqCst);
            Some((slot, self.placeless.swap(false, Ordering::SeqCst)))
        });
        let Some((slot, is_wanted)) = freed else {
            return;
        };
        // Who comes to sleep there from here on finds that it is not the queue's.
        slot.wake_all();
        if is_wanted {
            self.announce_free_slot();
        }
    }

    /// A place is free, and some queue found none: schedulers and sessions read their queues again, and look for places.
    #[cold]
    fn announce_free_slot(&self) {
        for database in &self.databases {
            if database.oid() != 0 && database.presence() == Presence::Present {
                database.definitions.fetch_add(1, Ordering::SeqCst);
                self.announce_due(database, 0);
            }
        }
    }

    /// The queues of a database that have a slot and are committed. Of those whose row a later snapshot does not show, the
    /// row is gone: COMMIT PREPARED, which does not know what was prepared, cannot have given up their slots.
    pub fn born_queues_of(&self, database: u32) -> Vec<QueueKey> {
        let born = self.queues().iter().filter_map(|slot| {
            // The key again: the slot may have been given to a queue that is not born yet.
            let key = slot.key().filter(|key| key.database == database)?;
            let is_born = !slot.standing().has(Standing::UNBORN);
            (is_born && slot.is(key)).then_some(key)
        });
        born.collect()
    }

    /// Gives up all slots of a database: its extension or itself is gone.
    pub fn free_queues_of(&self, database: u32) {
        self.free_queues_but(database, |_| false);
        self.forget_kept_of(database);
    }

    /// All but those of some queues.
    pub fn free_queues_but(&self, database: u32, stays: impl Fn(QueueKey) -> bool) {
        let keys = self.queues().iter().filter_map(QueueSlot::key);
        for key in keys.filter(|key| key.database == database && !stays(*key)) {
            self.free_queue(key);
        }
    }
}
