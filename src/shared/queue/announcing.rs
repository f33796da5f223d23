//! Who commits jobs of a queue announces them, and says before that it is about to: a drop waits for that, or refuses.

use super::queue_slot::{QueueKey, QueueSlot};
use std::sync::atomic::Ordering;

impl QueueSlot {
    /// What a transaction announces of the queue can be seen from now on, and `end_announcing` follows the announcement.
    pub fn begin_announcing(&self) {
        self.announcing.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end_announcing(&self) {
        let others = self.announcing.fetch_sub(1, Ordering::SeqCst) - 1;
        if others == 0 && self.end_awaited.load(Ordering::SeqCst) {
            self.announce_end();
        }
    }

    #[cold]
    fn announce_end(&self) {
        self.end_awaited.store(false, Ordering::SeqCst);
        self.announce_drained();
    }

    /// Whether nobody commits jobs of the queue now. Else the last of those who do raises `drains`: their jobs may be done
    /// already, but a drop of the queue is refused until they have ended.
    pub fn nobody_announces(&self) -> bool {
        self.end_awaited.store(true, Ordering::SeqCst);
        self.announcing.load(Ordering::SeqCst) == 0
    }

    /// What a transaction changed in the catalogs may be unknown where its jobs can be seen, until `end_changing`.
    pub fn begin_changing(&self) {
        self.changing.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end_changing(&self) {
        self.changing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Asked after jobs were claimed.
    pub fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) != 0
    }

    /// Closes the queue for its drop to transactions that have not begun to announce jobs of it. True when some have begun
    /// and may yet commit: the caller looks at the table afterwards.
    pub fn close(&self) -> bool {
        self.closing.store(true, Ordering::SeqCst);
        self.announcing.load(Ordering::SeqCst) != 0
    }

    /// The drop did not commit.
    pub fn reopen(&self) {
        self.closing.store(false, Ordering::SeqCst);
    }

    /// Whether new jobs of the queue may commit. Asked after `begin_announcing`.
    pub fn takes_jobs_of(&self, key: QueueKey) -> bool {
        self.is(key) && !self.closing.load(Ordering::SeqCst)
    }
}
