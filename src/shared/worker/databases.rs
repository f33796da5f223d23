//! The slots of all databases: found, made, given up, and called.

use std::sync::atomic::Ordering;

use crate::shared::database::DatabaseSlot;
use crate::shared::Shared;

impl Shared {
    pub fn find_database(&self, oid: u32) -> Option<&DatabaseSlot> {
        self.databases.iter().find(|database| database.oid() == oid)
    }

    /// The slot of a database, made if need be; None when all are taken.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn ensure_database(&self, oid: u32) -> Option<&DatabaseSlot> {
        if let Some(found) = self.find_database(oid) {
            return Some(found);
        }
        self.slots.with(|| {
            if let Some(found) = self.find_database(oid) {
                return Some(found);
            }
            let free = self.databases.iter().find(|database| database.oid() == 0)?;
            free.reset();
            free.oid.store(oid, Ordering::Release);
            Some(free)
        })
    }

    /// Gives up the slot of a dropped database, those of its queues and watches, and its cancels.
    pub fn free_database(&self, oid: u32) {
        self.free_queues_of(oid);
        self.cancels.forget(oid);
        self.free_watches_of(oid);
        self.forget_log_of(oid);
        if let Some(found) = self.find_database(oid) {
            found.oid.store(0, Ordering::Release);
        }
    }

    /// Makes the scheduler carry out cancels of jobs that nobody holds. May be called in commit callbacks.
    pub fn ask_for_cancels(&self, database: &DatabaseSlot) {
        database.cancels_requested.store(true, Ordering::SeqCst);
        self.announce_due(database, 0);
    }

    /// Announces to a database's scheduler, or to the launcher while there is none, that something is due at `time`.
    pub fn announce_due(&self, database: &DatabaseSlot, time: i64) {
        if database.announce_due(time) {
            if database.scheduler().is_entered() {
                database.scheduler().wake();
            } else {
                self.call_launcher_to(database);
            }
        }
    }

    /// Makes the launcher look for what was announced in a database before, unless no worker comes there.
    pub fn call_launcher_to(&self, database: &DatabaseSlot) {
        if !database.left_out.load(Ordering::SeqCst) {
            self.call_launcher();
        }
    }
}
