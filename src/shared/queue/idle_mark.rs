//! A queue without ready jobs, as against one whose rows a claim has passed over because somebody held them.

use super::queue_slot::QueueSlot;
use std::sync::atomic::Ordering;

impl QueueSlot {
    /// A claim has passed over rows that somebody has locked: they are below the watermark, and nobody holds a permit for
    /// them.
    pub fn pass_over(&self) {
        self.passed_over.fetch_add(1, Ordering::SeqCst);
    }

    /// How many times claims have passed over locked rows. Read before the table is looked at.
    pub fn times_passed_over(&self) -> u64 {
        self.passed_over.load(Ordering::SeqCst)
    }

    /// The table has no unfinished job of the queue; `times`: what `times_passed_over` said before.
    pub fn is_empty_after(&self, times: u64) {
        self.passed_over_gone.fetch_max(times, Ordering::SeqCst);
    }

    /// Some(permits given so far) while no committed job of the queue is ready or held, as far as shared memory shows; two
    /// equal answers: none began in between. None: look at the table.
    pub fn idle_mark(&self) -> Option<u64> {
        let permits = self.permits.load(Ordering::SeqCst);
        // `announcing` before the watermarks: a transaction announces its jobs before it ends `announcing`.
        let rests = self.running.load(Ordering::SeqCst) == 0
            && self.announcing.load(Ordering::SeqCst) == 0
            && !self.may_be_ready()
            && self.times_passed_over() == self.passed_over_gone.load(Ordering::SeqCst);
        // Only an executor with a permit takes watermarks: what was read of them holds if no permit was given meanwhile.
        (rests && self.permits.load(Ordering::SeqCst) == permits).then_some(permits)
    }
}
