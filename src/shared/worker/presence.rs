//! Whether the extension is in a database, as commits say it and as looks find it.

use super::database::DatabaseSlot;

pub use pushy_core::presence::{Look, Presence};

impl DatabaseSlot {
    pub fn presence(&self) -> Presence {
        self.presence.get()
    }

    /// A commit brings the extension or takes it away.
    pub(in crate::shared) fn announce_presence(&self, presence: Presence) {
        self.presence.announce(presence);
    }

    /// A commit has perhaps brought the extension.
    pub fn doubt_looks(&self) {
        self.presence.doubt();
    }

    /// Before a look whether the extension is there.
    pub fn begin_look(&self) -> Look {
        self.presence.begin_look()
    }

    /// Says what a look has found; false, and nothing is said, where a commit has said something since the look began.
    pub(in crate::shared) fn conclude_look(&self, look: Look, presence: Presence) -> bool {
        self.presence.conclude(look, presence)
    }

    /// Notes that the extension is there, because something of it was committed here, though no scheduler may have looked
    /// since the server started. True when that is news: then the scheduler has yet to find out what is due.
    pub fn witness(&self) -> bool {
        let is_news = self.presence.witness();
        if is_news {
            self.announce_due(0);
        }
        is_news
    }
}
