//! How many jobs of a queue workers outside have leased: `pushy_core::lease_count`.

use std::sync::atomic::Ordering;

use pushy_core::lease_count::LeaseCount;

use super::queue_slot::QueueSlot;
use crate::shared::Shared;

impl QueueSlot {
    pub fn lease_count(&self) -> LeaseCount {
        LeaseCount::from_u64(self.leases.load(Ordering::SeqCst))
    }

    /// May be called in commit callbacks.
    pub(in crate::shared) fn change_lease_count(&self, change: impl Fn(LeaseCount) -> LeaseCount) {
        let changed = |word| Some(change(LeaseCount::from_u64(word)).as_u64());
        let _ = self
            .leases
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, changed);
    }

    /// The caller holds the lock of the queue's leases alone, and has counted them since this was all that was known.
    pub fn know_lease_count(&self, before: LeaseCount, count: u32) {
        let counted = before.counted(count).as_u64();
        let _ = self.leases.compare_exchange(
            before.as_u64(),
            counted,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
    }
}

impl Shared {
    /// Leases of a database's queues may have come or gone without a word: they are counted again.
    pub fn doubt_leases_of(&self, database: u32) {
        for slot in self.queues() {
            if slot.key().is_some_and(|key| key.database == database) {
                slot.change_lease_count(LeaseCount::forgotten);
            }
        }
    }
}
