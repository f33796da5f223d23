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

    /// The same for a session that claims jobs for a worker outside, which does not run them: whoever waits for all jobs of the queue is to
    /// know of them until they are leased. There is no limit to these.
    pub fn take_permit_of_claim(&self) -> bool {
        self.claims.fetch_add(1, Ordering::SeqCst);
        let is_taken = self.take_permit_of_session();
        self.claims
            .fetch_sub(u32::from(!is_taken), Ordering::SeqCst);
        is_taken
    }

    /// Gives that back.
    pub fn return_permit_of_claim(&self, key: QueueKey) {
        self.return_permit_of_session(key);
        if self.is(key) {
            let less = |claims: u32| claims.checked_sub(1);
            let _ = self
                .claims
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        }
    }

    /// Executors, and sessions with queue_run, that may have jobs of it in hand. In a queue that has no handler any more there may be some
    /// yet, and no new ones once its standing says so.
    pub fn at_work_inside(&self) -> u32 {
        // Who holds the lock of the queue's leases meets no other claim between its two; to others it may seem one less.
        let claims = self.claims.load(Ordering::SeqCst);
        let running = self.running.load(Ordering::SeqCst);
        running.saturating_sub(claims)
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
