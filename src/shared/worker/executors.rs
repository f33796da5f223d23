//! The slots of all executors.

use std::sync::atomic::{AtomicU32, Ordering};

use super::executor::{ExecutorSlot, ExecutorState, MAX_EXECUTORS};
use crate::shared::Shared;

/// The slots, of which most servers use two. Whoever walks over them walks over those that were ever reserved.
#[repr(C)]
pub struct Executors {
    slots: [ExecutorSlot; MAX_EXECUTORS],
    /// Slots from this on have never been reserved: nobody has written there, and nobody need read it.
    used: AtomicU32,
}

impl Executors {
    pub fn iter(&self) -> std::slice::Iter<'_, ExecutorSlot> {
        self.slots[..self.used.load(Ordering::SeqCst) as usize].iter()
    }

    pub fn get(&self, slot: usize) -> Option<&ExecutorSlot> {
        self.slots.get(slot)
    }

    /// A free slot, the lowest, which counts as used from here on; the launcher only.
    pub fn find_free(&self) -> Option<usize> {
        let is_free = |slot: &ExecutorSlot| slot.state() == ExecutorState::Free;
        let free = self.slots.iter().position(is_free)?;
        if free as u32 >= self.used.load(Ordering::SeqCst) {
            self.slots[free].init();
            self.used.store(free as u32 + 1, Ordering::SeqCst);
        }
        Some(free)
    }
}

impl std::ops::Index<usize> for Executors {
    type Output = ExecutorSlot;

    fn index(&self, slot: usize) -> &ExecutorSlot {
        &self.slots[slot]
    }
}

impl<'a> IntoIterator for &'a Executors {
    type Item = &'a ExecutorSlot;
    type IntoIter = std::slice::Iter<'a, ExecutorSlot>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl Shared {
    /// Whether an executor of this database is in the middle of a claim.
    pub fn is_claiming(&self, database: u32) -> bool {
        self.executors.iter().any(|executor| {
            executor.claiming.load(Ordering::SeqCst)
                && executor.database.load(Ordering::SeqCst) == database
        })
    }

    /// Sets the latch of every executor, also of busy ones that wait for something else than work.
    pub fn wake_executors(&self) {
        for executor in &self.executors {
            executor.process.wake();
        }
    }

    /// Slots not free.
    pub fn executors_in_use(&self) -> usize {
        self.executors
            .iter()
            .filter(|executor| executor.state() != ExecutorState::Free)
            .count()
    }
}
