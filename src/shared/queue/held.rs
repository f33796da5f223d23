//! Ready jobs whose rows somebody keeps locked who is no executor: whoever claims passes over them, and nobody announces the end of
//! such a lock. So they are announced again after a while.

use std::sync::atomic::Ordering;

use super::queue_slot::{QueueKey, NOTHING, PRIORITIES};
use crate::pg::clock;
use crate::shared::Shared;

/// After so long (µs) they are tried again.
const AGAIN_US: i64 = 500_000;

impl Shared {
    /// A claim that has taken the watermark has passed over a job that no executor holds: the first at this position.
    #[cold]
    pub fn note_held(&self, index: usize, key: QueueKey, priority: usize, position: u64) {
        let Some(database_slot) = self.find_database(key.database) else {
            return;
        };
        let slot = &self.queues()[index];
        // Taken in the other order: a priority without a position is looked at from the beginning.
        slot.held_from.fetch_min(position, Ordering::SeqCst);
        slot.held_priorities
            .fetch_or(1 << priority, Ordering::SeqCst);
        database_slot.has_held.store(true, Ordering::SeqCst);
        self.announce_due(database_slot, clock::now().plus_us(AGAIN_US).0);
    }

    /// Announces again what was noted of the queues of a database.
    pub fn announce_all_held(&self, database: u32) {
        for (index, slot) in self.queues().iter().enumerate() {
            if slot.held_priorities.load(Ordering::SeqCst) != 0 {
                if let Some(key) = slot.key().filter(|key| key.database == database) {
                    self.announce_held(index, key);
                }
            }
        }
    }

    /// The same of one.
    fn announce_held(&self, index: usize, key: QueueKey) {
        let slot = &self.queues()[index];
        let priorities = slot.held_priorities.swap(0, Ordering::SeqCst);
        if priorities == 0 {
            return;
        }
        let from = match slot.held_from.swap(NOTHING, Ordering::SeqCst) {
            NOTHING => 0,
            from => from,
        };
        for priority in (0..PRIORITIES).filter(|priority| priorities & (1 << priority) != 0) {
            self.announce(index, key, priority, from);
        }
        self.wake_for(index);
    }
}
