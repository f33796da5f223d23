//! Wakes another executor for what a claim leaves, when this one is not back soon.
//!
//! Waking an executor for each job left behind would wake two for each short one. But a job may turn out to be long, or a
//! queue may always have more: so a timer reminds this executor, which wakes another if jobs are still left. (Without it,
//! one slow job kept those behind it waiting while others slept, and one executor alone did all of a queue of short jobs
//! with `batch => false`.)

use std::sync::atomic::{AtomicBool, Ordering};

use crate::pg::timeout::Reminder;
use crate::shared::queue_slot::QueueSlot;
use crate::shared::{self, executor, Shared};

/// A timer's time, of which another executor needs some tenths to wake and begin.
const SOON_MS: i32 = 1;
/// So many jobs are taken to last longer than `SOON_MS`.
const MANY: usize = 16;

pub struct WakeAnother(Reminder);

/// The reminder is on its way.
static IS_ARMED: AtomicBool = AtomicBool::new(false);

impl WakeAnother {
    /// In an executor that has connected.
    pub fn new() -> Self {
        Self(Reminder::new(on_reminder))
    }

    /// A claim of so many jobs has left others ready: wakes somebody for them, now or in a moment.
    pub fn for_rest_of_claim(&self, shared: &Shared, index: usize, claimed: usize) {
        if is_long(&shared.queues()[index], claimed) {
            shared.wake_for(index);
        } else if !IS_ARMED.swap(true, Ordering::SeqCst) {
            self.0.arm(SOON_MS);
        }
    }
}

/// Whether a batch is longer than another executor takes to wake, as far as is known.
fn is_long(slot: &QueueSlot, claimed: usize) -> bool {
    let mean_ns = slot.mean_ns.load(Ordering::Relaxed);
    let expected_ns = mean_ns.saturating_mul(claimed as u64);
    mean_ns == 0 || claimed >= MANY || expected_ns >= SOON_MS as u64 * 1_000_000
}

/// Wakes somebody for the first queue of ours that still has something ready. A signal handler.
extern "C-unwind" fn on_reminder() {
    IS_ARMED.store(false, Ordering::SeqCst);
    let (Some(shared), Some(me)) = (shared::get(), executor::mine()) else {
        return;
    };
    if let Some(left) = shared.workable_by(me, 0).next() {
        shared.wake_for(left);
    }
}
