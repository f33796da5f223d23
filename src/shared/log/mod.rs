//! What writers announce to the relay of their database: that there is something, and where it lies.

mod log_shared;
mod ring;
pub mod share;

pub use log_shared::{Gap, LogShared};
pub use ring::Ring;

use std::sync::atomic::Ordering;

use pushy_core::log::written::{About, Written};

use crate::shared::database::DatabaseSlot;
use crate::shared::listened::ListenerCounter;
use crate::shared::Shared;

/// Databases whose relays run at a time without having to look for what was written.
pub const RINGS: usize = 32;

impl Shared {
    /// Announces to the relay where events lie, before their transaction commits. True when somebody waits for them and
    /// the relay does not know.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn announce_written(&self, database_slot: &DatabaseSlot, written: &Written) -> bool {
        let Some(ring) = database_slot.log.ring.load(Ordering::SeqCst).checked_sub(1) else {
            return false;
        };
        if self.rings[ring as usize].push(database_slot.oid(), written) {
            self.announce_logged(database_slot, true);
        }
        let is_heard = |about: About| {
            let counter = ListenerCounter::of(database_slot.oid(), about.channel);
            self.listened.has(counter)
        };
        database_slot.log.takes_its_time() && written.about.is_none_or(is_heard)
    }

    /// Something was committed to the log: the relay comes, or the launcher starts one. `hurry`: and soon, though
    /// it takes its time.
    pub fn announce_logged(&self, database_slot: &DatabaseSlot, hurry: bool) {
        let is_news = database_slot.log.set_dirty();
        if (hurry && database_slot.log.hurry()) || is_news {
            self.wake_relay(database_slot);
        }
    }

    pub fn wake_relay(&self, database_slot: &DatabaseSlot) {
        if database_slot.relay().is_entered() {
            database_slot.relay().wake();
        } else {
            self.call_launcher_to(database_slot);
        }
    }

    /// A ring for the relay of a database; None when all are taken.
    pub fn take_ring(&self, database_slot: &DatabaseSlot) -> Option<&Ring> {
        let oid = database_slot.oid();
        let index = self.rings.iter().position(|ring| {
            ring.database
                .compare_exchange(0, oid, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        })?;
        self.rings[index].start_over();
        database_slot
            .log
            .ring
            .store(index as u32 + 1, Ordering::SeqCst);
        Some(&self.rings[index])
    }

    pub fn return_ring(&self, database_slot: &DatabaseSlot) {
        let ring = database_slot.log.ring.swap(0, Ordering::SeqCst);
        if let Some(index) = ring.checked_sub(1) {
            self.rings[index as usize]
                .database
                .store(0, Ordering::SeqCst);
        }
    }
}
