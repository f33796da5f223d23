//! Transactions that were prepared by no statement: a subscription of PostgreSQL's with two_phase prepares and ends them in C, and
//! no hook is told of their end. So the launcher looks whether they have ended while there are any, more seldom the longer they
//! are open, and announces for them what COMMIT PREPARED announces elsewhere.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use crate::pg::transaction;
use crate::shared::database::NEVER;
use crate::shared::Shared;

/// Of more at a time the minute's sweep finds what they have brought.
pub const MOST_UNTOLD: usize = 64;
/// How long (µs) after the last look the next one is: an eighth of the time that the transaction is open, within these.
const SOONEST_US: i64 = 10_000;
const LATEST_US: i64 = 1_000_000;

#[repr(C)]
pub struct UntoldCell {
    /// 0: free.
    database: AtomicU32,
    xid: AtomicU32,
    since: AtomicI64,
}

impl Shared {
    /// A transaction of this database is prepared, and nobody will tell of its end. May be called in commit callbacks.
    #[cold]
    pub fn note_untold(&self, database: u32, xid: u32, now: i64) {
        let noted = self.slots.with(|| {
            let cells = &self.untold;
            let is_here = |cell: &UntoldCell| {
                cell.database.load(Ordering::SeqCst) == database
                    && cell.xid.load(Ordering::SeqCst) == xid
            };
            if cells.iter().any(is_here) {
                return false;
            }
            let free = cells
                .iter()
                .find(|cell| cell.database.load(Ordering::SeqCst) == 0);
            let Some(cell) = free else {
                return false;
            };
            cell.xid.store(xid, Ordering::SeqCst);
            cell.since.store(now, Ordering::SeqCst);
            cell.database.store(database, Ordering::SeqCst);
            true
        });
        if noted {
            self.call_launcher();
        }
    }

    /// Whether what such a transaction has committed may not be announced yet. Of those from before the server's start nothing is
    /// known until a scheduler has looked.
    pub fn has_untold(&self, database: u32) -> bool {
        let slot = self.find_database(database);
        let is_inspected = slot.is_some_and(|slot| slot.is_inspected.load(Ordering::SeqCst));
        if !is_inspected && transaction::most_prepared() > 0 {
            return true;
        }
        let mut cells = self.untold.iter();
        cells.any(|cell| cell.database.load(Ordering::SeqCst) == database)
    }

    /// The launcher's look: announces what those that have ended may have committed; answers when to look again.
    pub fn announce_untold(&self, now: i64) -> i64 {
        let mut next = NEVER;
        for cell in &self.untold {
            let database = cell.database.load(Ordering::SeqCst);
            if database == 0 {
                continue;
            }
            if transaction::is_running(cell.xid.load(Ordering::SeqCst)) {
                let open = now.saturating_sub(cell.since.load(Ordering::SeqCst));
                next = next.min(now + (open / 8).clamp(SOONEST_US, LATEST_US));
                continue;
            }
            if let Some(slot) = self.find_database(database) {
                slot.doubt_looks();
                slot.definitions.fetch_add(1, Ordering::SeqCst);
                slot.orphans_requested.store(true, Ordering::SeqCst);
                slot.sweep_requested.store(true, Ordering::SeqCst);
                slot.scheduler().wake();
                self.announce_logged(slot, false);
            }
            // Last: until the sweep is asked for, whoever waits for jobs looks into the table.
            cell.database.store(0, Ordering::SeqCst);
        }
        next
    }
}
