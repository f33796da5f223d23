//! Whether the extension is in a database, as commits say it and as looks find it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::database::DatabaseSlot;

pub use pushy_core::gate::Presence;

/// The bits of a `Presence`.
const PRESENCE: u64 = 0b11;

/// What was said of the extension's presence when somebody began to look for it. Between the look and what it concludes others may
/// create or drop the extension, and theirs is the later word.
#[derive(Clone, Copy, Debug)]
pub struct Look(u64);

pub(super) fn store_presence(cell: &AtomicU64, presence: Presence) {
    let next = |said: u64| Some(((said & !PRESENCE) + PRESENCE + 1) | presence as u64);
    let _ = cell.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
}

impl DatabaseSlot {
    pub fn presence(&self) -> Presence {
        match self.presence.load(Ordering::SeqCst) & PRESENCE {
            1 => Presence::Present,
            2 => Presence::Absent,
            3 => Presence::Incompatible,
            _ => Presence::Unknown,
        }
    }

    /// A commit brings the extension or takes it away. Looks that began before this conclude nothing.
    pub fn announce_presence(&self, presence: Presence) {
        store_presence(&self.presence, presence);
    }

    /// A commit has perhaps brought the extension: looks that began before this conclude nothing.
    pub fn doubt_looks(&self) {
        self.presence.fetch_add(PRESENCE + 1, Ordering::SeqCst);
    }

    /// Before a look whether the extension is there.
    pub fn begin_look(&self) -> Look {
        Look(self.presence.load(Ordering::SeqCst))
    }

    /// Says what a look has found; false, and nothing is said, where a commit has said something since the look began.
    pub fn conclude_look(&self, look: Look, presence: Presence) -> bool {
        let found = (look.0 & !PRESENCE) | presence as u64;
        self.presence
            .compare_exchange(look.0, found, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }

    /// Notes that the extension is there, because something of it was committed here, though no scheduler may have looked
    /// since the server started. True when that is news: then the scheduler has yet to find out what is due.
    pub fn witness(&self) -> bool {
        let witness = |presence: u64| {
            (presence & PRESENCE == Presence::Unknown as u64)
                .then_some(presence | Presence::Present as u64)
        };
        let witnessed = self
            .presence
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, witness);
        if witnessed.is_ok() {
            self.announce_due(0);
        }
        witnessed.is_ok()
    }
}
