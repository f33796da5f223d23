//! Transactions that were prepared by no statement: a subscription of PostgreSQL's with two_phase prepares and ends them in C, and
//! no hook is told of their end. So the launcher looks whether they have ended while there are any, more seldom the longer they
//! are open, and announces for them what COMMIT PREPARED announces elsewhere.
//!
//! There are places for all that can be prepared at a time, and some more for those that have ended since the launcher's last look. One
//! that finds none (its subscription ends them faster than the launcher looks) is counted in its database, whose scheduler then reads
//! which are prepared and looks for what the others have brought: nobody waits longer for what another database does.

use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use super::ready_at_end::{Brings, BringsCell};
use crate::pg::transaction;
use crate::shared::database::{DatabaseSlot, NEVER};
use crate::shared::Shared;

/// The places in shared memory, for as many prepared transactions as the server takes.
pub(super) fn cells(most_prepared: usize) -> usize {
    if most_prepared == 0 {
        0
    } else {
        most_prepared + 64
    }
}

/// How long (µs) after the last look the next one is: an eighth of the time that the transaction is open, within these.
const SOONEST_US: i64 = 10_000;
const LATEST_US: i64 = 1_000_000;

#[repr(C)]
pub struct UntoldCell {
    /// 0: free.
    database: AtomicU32,
    xid: AtomicU32,
    since: AtomicI64,
    brings: BringsCell,
}

impl Shared {
    /// A transaction of this database is prepared, and nobody will tell of its end. May be called in commit callbacks.
    #[cold]
    pub fn note_untold(&self, database: u32, xid: u32, now: i64, brings: &Brings) {
        if !self.find_place(database, xid, now, brings) {
            if let Some(slot) = self.find_database(database) {
                slot.untold_beyond.fetch_add(1, Ordering::SeqCst);
                self.announce_due(slot, 0);
            }
        }
        self.call_launcher();
    }

    /// False: all places are taken.
    fn find_place(&self, database: u32, xid: u32, now: i64, brings: &Brings) -> bool {
        self.slots.with(|| {
            let cells = self.untold();
            let is_here = |cell: &UntoldCell| {
                cell.database.load(Ordering::SeqCst) == database
                    && cell.xid.load(Ordering::SeqCst) == xid
            };
            if cells.iter().any(is_here) {
                return true;
            }
            let is_free = |cell: &&UntoldCell| cell.database.load(Ordering::SeqCst) == 0;
            let Some(cell) = cells.iter().find(is_free) else {
                return false;
            };
            cell.xid.store(xid, Ordering::SeqCst);
            cell.since.store(now, Ordering::SeqCst);
            cell.brings.set(brings);
            cell.database.store(database, Ordering::SeqCst);
            true
        })
    }

    /// Notes those of this database that are prepared, as `prepared` reads them: from before the server's start, and for which there was
    /// no place. What others have brought, that have ended by then, is found by the sweep that this asks for.
    pub fn inspect_untold<E>(
        &self,
        slot: &DatabaseSlot,
        now: i64,
        prepared: impl FnOnce() -> Result<Vec<u32>, E>,
    ) -> Result<(), E> {
        // Before it is read who is prepared: one that finds no place from here on is another look's.
        let beyond = slot.untold_beyond.load(Ordering::SeqCst);
        for xid in prepared()? {
            self.note_untold(slot.oid(), xid, now, &Brings::Anything);
        }
        slot.sweep_requested.store(true, Ordering::SeqCst);
        slot.untold_inspected.store(beyond, Ordering::SeqCst);
        Ok(())
    }

    /// Whether what such a transaction has committed may not be announced yet. Of those from before the server's start nothing is
    /// known until a scheduler has looked.
    pub fn has_untold(&self, database: u32) -> bool {
        if transaction::most_prepared() == 0 {
            return false;
        }
        let slot = self.find_database(database);
        let is_inspected =
            slot.is_some_and(|slot| slot.is_inspected.load(Ordering::SeqCst) && !slot.has_beyond());
        if !is_inspected {
            return true;
        }
        let mut cells = self.untold().iter();
        cells.any(|cell| cell.database.load(Ordering::SeqCst) == database)
    }

    /// The launcher's look: announces what those that have ended may have committed; answers when to look again.
    pub fn announce_untold(&self, now: i64) -> i64 {
        let mut next = NEVER;
        for cell in self.untold() {
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
                let is_announced = match cell.brings.get() {
                    Brings::Nothing => true,
                    Brings::Ready(ready) => self.announce_ready_at_end(slot, &ready),
                    Brings::Anything => false,
                };
                if !is_announced {
                    slot.doubt_looks();
                    self.doubt_leases_of(database);
                    slot.definitions.fetch_add(1, Ordering::SeqCst);
                    slot.request_looks();
                    slot.scheduler().wake();
                    self.announce_logged(slot, false);
                }
            }
            // Last: until it is announced, or the sweep is asked for, whoever waits for jobs looks into the table.
            cell.database.store(0, Ordering::SeqCst);
        }
        next
    }
}

impl DatabaseSlot {
    /// The scheduler looks for rows that no commit has announced, which may be of a queue that is gone.
    pub fn request_looks(&self) {
        self.orphans_requested.store(true, Ordering::SeqCst);
        self.sweep_requested.store(true, Ordering::SeqCst);
    }

    /// Transactions found no place, and the scheduler has not looked for them yet.
    pub fn has_beyond(&self) -> bool {
        self.untold_inspected.load(Ordering::SeqCst) != self.untold_beyond.load(Ordering::SeqCst)
    }
}
