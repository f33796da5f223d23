//! Whether a queue may start a job now, as shared memory has it: `pushy_core::gate` decides, for those who start jobs and wake
//! others (wake.rs), the launcher, an enqueue of a unique key, and queue_explain.

use std::sync::atomic::Ordering;

use pushy_core::gate::{self, Asker, Closed, Facts};
use pushy_core::presence::Presence;
use pushy_core::standing::Standing;

use crate::shared::database::DatabaseSlot;
use crate::shared::queue_slot::QueueSlot;
use crate::shared::Shared;

impl Shared {
    /// Whether the queue in a slot may start a job now. Allocates nothing and raises nothing: may be called in commit callbacks.
    #[inline]
    pub fn lets_in(&self, index: usize, now: i64, asker: Asker) -> bool {
        // Of others than the own queue most have no more to say.
        self.queues()[index].standing().is_open() && self.facts(index).let_in(now, asker)
    }

    /// The same for a worker outside that claims jobs. Not before all know that the queue has no handler: an executor that has entered it
    /// until then is counted.
    pub fn lets_in_outside(&self, index: usize, now: i64) -> bool {
        self.queues()[index].standing().has(Standing::OUTSIDE)
            && self.facts(index).let_in(now, Asker::Outside)
    }

    /// The same for the transaction that has made the queue, which it sees as `standing`: no executor has entered it.
    #[cold]
    pub fn lets_in_maker(&self, index: usize, standing: Standing, now: i64) -> bool {
        let facts = self.facts(index);
        facts.standing.has(Standing::UNBORN)
            && standing.has(Standing::OUTSIDE)
            && Facts { standing, ..facts }.let_in(now, Asker::Outside)
    }

    /// The same, and why not.
    pub fn gate(&self, index: usize, now: i64, asker: Asker) -> Result<(), Closed> {
        gate::gate(&self.facts(index), now, asker)
    }

    /// What shared memory knows of the queue in a slot.
    pub fn facts(&self, index: usize) -> Facts {
        let slot = &self.queues()[index];
        let Some(key) = slot.key() else {
            return Facts {
                standing: Standing::DROPPED,
                ..Facts::OPEN
            };
        };
        let database_slot = self.database_slot_of(slot, key.database);
        Facts {
            enabled: !self.closed.load(Ordering::SeqCst),
            served: database_slot
                .is_some_and(|database_slot| !database_slot.left_out.load(Ordering::SeqCst)),
            presence: database_slot.map_or(Presence::Absent, DatabaseSlot::presence),
            quiesced: database_slot.is_some_and(DatabaseSlot::is_quiesced),
            standing: slot.standing(),
            suspended_until: slot.suspended_until(),
            running: slot.running.load(Ordering::SeqCst),
            limit: slot.concurrency.load(Ordering::SeqCst),
            quarantined: self.quarantine.load(Ordering::SeqCst) != 0,
        }
    }

    /// The place of a queue's database: remembered in the queue's slot, because others are passed over on the way to it.
    fn database_slot_of(&self, slot: &QueueSlot, oid: u32) -> Option<&DatabaseSlot> {
        let remembered = slot.database_at.load(Ordering::Relaxed) as usize;
        let candidate = self.databases.get(remembered);
        if candidate.is_some_and(|database_slot| database_slot.oid() == oid) {
            return candidate;
        }
        let found = self
            .databases
            .iter()
            .position(|database_slot| database_slot.oid() == oid)?;
        slot.database_at.store(found as u32, Ordering::Relaxed);
        self.databases.get(found)
    }
}
