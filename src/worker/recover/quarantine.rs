//! Running one job with no other in the cluster: a job under suspicion after a crash, so that the next
//! crash tells who it is. For a while only (`pushy_core::suspicion`): the others wait.
//!
//! An executor that opens a batch first publishes that, then looks who is alone; one that wants to be alone first
//! says so, then looks for open batches. So one of the two sees the other.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushy_core::suspicion;

use crate::pg::latch;
use crate::pg::per_process::PerProcess;
use crate::pg::timeout::Reminder;
use crate::shared::{self, Shared};
use crate::worker::recorder::Note;

fn holder(slot: usize) -> u64 {
    slot as u64 + 1
}

/// Opens a batch; false when somebody wants to be alone: wait on the latch and try again.
pub fn open_batch(shared: &Shared, slot: usize) -> bool {
    let me = &shared.executors[slot];
    me.in_batch.store(true, Ordering::SeqCst);
    let alone = shared.quarantine.load(Ordering::SeqCst);
    if alone == 0 || alone == holder(slot) {
        return true;
    }
    close_batch(shared, slot);
    false
}

/// Closes the batch, and wakes whoever waits to be alone.
pub fn close_batch(shared: &Shared, slot: usize) {
    shared.executors[slot]
        .in_batch
        .store(false, Ordering::SeqCst);
    let alone = shared.quarantine.load(Ordering::SeqCst);
    if alone != 0 && alone != holder(slot) {
        if let Some(waiting) = shared.executors.get(alone as usize - 1) {
            waiting.process.wake();
        }
    }
}

/// What an executor brings to a batch that runs alone.
pub struct Quarantine(Reminder);

/// The note of this process.
static NOTE: PerProcess<Cell<Option<&'static Note>>> = PerProcess::new(Cell::new(None));

impl Quarantine {
    /// In an executor that has connected.
    pub fn new(note: &'static Note) -> Self {
        NOTE.set(Some(note));
        Self(Reminder::new(over))
    }

    /// Waits until no other executor has a batch open, WAIT_FOR_OTHERS_MS at most. False, and the caller gives way, when
    /// another executor has the quarantine or this one was asked to stop. After true no other batch begins until the job,
    /// suspected `times` times, or its quarantine ends.
    pub fn enter(&self, shared: &Shared, slot: usize, times: i16) -> bool {
        let taken =
            shared
                .quarantine
                .compare_exchange(0, holder(slot), Ordering::SeqCst, Ordering::SeqCst);
        if taken.is_err_and(|alone| alone != holder(slot)) {
            return false;
        }
        let wait = Duration::from_millis(suspicion::WAIT_FOR_OTHERS_MS.into());
        let since = Instant::now();
        while others_in_batch(shared, slot) {
            let left = wait.saturating_sub(since.elapsed());
            if left.is_zero() {
                break;
            }
            // Each that leaves a batch sets our latch; the bound is for those that die without a word.
            latch::wait(Some(left.min(Duration::from_secs(1))));
            if shared.executors[slot].stop_requested.load(Ordering::SeqCst) {
                end(shared, slot);
                return false;
            }
        }
        set_in_quarantine(true);
        self.0.arm(suspicion::quarantine_ms(times) as i32);
        true
    }

    /// The batch is over.
    pub fn end(&self, shared: &Shared, slot: usize) {
        if is_held_by(shared, slot) {
            self.0.disarm();
            end(shared, slot);
        }
    }
}

fn set_in_quarantine(held: bool) {
    if let Some(note) = NOTE.get() {
        note.set_in_quarantine(held);
    }
}

/// The job has been alone for long enough: the others go on beside it. A signal handler.
extern "C-unwind" fn over() {
    if let (Some(shared), Some(slot)) = (shared::get(), shared::executor::mine()) {
        // The note first: once the others go on, any running job may cause a crash.
        set_in_quarantine(false);
        end(shared, slot);
    }
}

fn is_held_by(shared: &Shared, slot: usize) -> bool {
    shared.quarantine.load(Ordering::SeqCst) == holder(slot)
}

fn others_in_batch(shared: &Shared, slot: usize) -> bool {
    shared
        .executors
        .iter()
        .enumerate()
        .any(|(other, executor)| other != slot && executor.in_batch.load(Ordering::SeqCst))
}

/// Lets the others go on, if this one is alone, and wakes those who waited.
fn end(shared: &Shared, slot: usize) {
    let ended =
        shared
            .quarantine
            .compare_exchange(holder(slot), 0, Ordering::SeqCst, Ordering::SeqCst);
    if ended.is_ok() {
        shared.wake_executors();
    }
}

/// What an executor that leaves for good gives up.
pub fn leave_for_good() {
    if let (Some(shared), Some(slot)) = (shared::get(), shared::executor::mine()) {
        close_batch(shared, slot);
        end(shared, slot);
    }
}
