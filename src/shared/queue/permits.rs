//! A queue's permits: whoever runs jobs of it has one, so no more run at a time than its concurrency says.

use std::sync::atomic::Ordering;

use super::queue_slot::{QueueKey, QueueSlot};

impl QueueSlot {
    /// Takes one of the queue's permits; false when all are in use.
    pub fn take_permit(&self) -> bool {
        self.running
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |running| {
                let limit = self.concurrency.load(Ordering::SeqCst);
                (limit == 0 || running < limit).then_some(running + 1)
            })
            .inspect(|_| {
                // Before the watermarks are taken: see `idle_mark`.
                self.permits.fetch_add(1, Ordering::SeqCst);
            })
            .is_ok()
    }

    /// The same for a session, which runs jobs itself.
    pub fn take_permit_of_session(&self) -> bool {
        let is_taken = self.take_permit();
        self.sessions
            .fetch_add(u32::from(is_taken), Ordering::SeqCst);
        is_taken
    }

    /// Gives that back.
    pub fn return_permit_of_session(&self, key: QueueKey) {
        if self.is(key) {
            let less = |sessions: u32| sessions.checked_sub(1);
            let _ = self
                .sessions
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        }
        self.return_permit(key);
    }

    /// Sessions that run jobs of it.
    pub fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::SeqCst)
    }

    /// Gives back a permit of this queue; true when none was left, so that somebody may have gone
    /// without. A slot that has another queue by now is left alone.
    pub fn return_permit(&self, key: QueueKey) -> bool {
        if !self.is(key) {
            return false;
        }
        let before = self
            .running
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |running| {
                running.checked_sub(1)
            });
        // Ready jobs of a queue that may not run bring no executor that would announce the drain later.
        if before == Ok(1) && !(self.may_be_ready() && self.standing().is_open()) {
            self.announce_drained();
        }
        let limit = self.concurrency.load(Ordering::SeqCst);
        limit != 0 && before.is_ok_and(|running| running >= limit)
    }
}
