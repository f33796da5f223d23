//! Running one job with no other in the cluster: a job under suspicion after a crash, so that the next
//! crash tells who it is.
//!
//! An executor that opens a batch says so first and looks at the gate then; one that takes the gate does
//! so first and looks for open batches then. One of the two sees the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::pg::latch;
use crate::shared::{self, Shared};

fn holder(slot: usize) -> u64 {
    slot as u64 + 1
}

/// Opens a batch; false when somebody wants to be alone: wait on the latch and try again.
pub fn enter_batch(shared: &Shared, slot: usize) -> bool {
    let me = &shared.executors[slot];
    me.in_batch.store(true, Ordering::SeqCst);
    let gate = shared.alone.load(Ordering::SeqCst);
    if gate == 0 || gate == holder(slot) {
        return true;
    }
    leave_batch(shared, slot);
    false
}

/// Closes the batch, and tells whoever waits to be alone.
pub fn leave_batch(shared: &Shared, slot: usize) {
    shared.executors[slot]
        .in_batch
        .store(false, Ordering::SeqCst);
    let gate = shared.alone.load(Ordering::SeqCst);
    if gate != 0 && gate != holder(slot) {
        if let Some(waiting) = shared.executors.get(gate as usize - 1) {
            waiting.process.wake();
        }
    }
}

/// Waits until no other executor has a batch open; false when another wants the same: give way.
pub fn seek(shared: &Shared, slot: usize) -> bool {
    let taken = shared
        .alone
        .compare_exchange(0, holder(slot), Ordering::SeqCst, Ordering::SeqCst);
    if taken.is_err_and(|gate| gate != holder(slot)) {
        return false;
    }
    while others_in_batch(shared, slot) {
        // Each that leaves a batch sets our latch; the bound is for those that die without a word.
        latch::wait(Some(Duration::from_secs(1)));
        if shared.executors[slot].stop_requested.load(Ordering::SeqCst) {
            end(shared, slot);
            return false;
        }
    }
    true
}

fn others_in_batch(shared: &Shared, slot: usize) -> bool {
    shared
        .executors
        .iter()
        .enumerate()
        .any(|(other, executor)| other != slot && executor.in_batch.load(Ordering::SeqCst))
}

/// Opens the gate again, if it is ours, and wakes those who waited.
pub fn end(shared: &Shared, slot: usize) {
    let ended = shared
        .alone
        .compare_exchange(holder(slot), 0, Ordering::SeqCst, Ordering::SeqCst);
    if ended.is_ok() {
        shared.wake_executors();
    }
}

/// What an executor that leaves for good gives up.
pub fn give_up() {
    if let (Some(shared), Some(slot)) = (shared::get(), shared::executor::mine()) {
        leave_batch(shared, slot);
        end(shared, slot);
    }
}
