//! Transactions that were prepared since the server started: which of them concern Pushy, by their names.
//!
//! COMMIT PREPARED does not know what its transaction had collected. Where that was jobs and events only, they are noted here and
//! announced with it; else a sweep looks for whatever it may have been, and each session reads its definitions anew.
//! Transactions that have nothing to do with Pushy spare a server both, because some applications prepare all of theirs. A transaction that is not found here was prepared before the server started, or by a
//! subscription of PostgreSQL's own, and counts as one that concerns Pushy.
//!
//! A place is taken when PREPARE has succeeded, before anybody else can end the transaction, and none is ever taken away: there
//! are as many as transactions can be prepared, and more for those who have just ended one and not said so here.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicU8, Ordering};

use pushy_core::fnv;

use super::ready_at_end::{Brings, BringsCell};
use super::Shared;

/// Bytes of a name: one less than GIDSIZE in access/xact.h.
const LONGEST: usize = 199;
/// Databases that one transaction keeps workers out of.
const MOST_QUIESCED: usize = 32;

/// The places in shared memory, for as many prepared transactions as the server takes.
pub(super) fn cells(most_prepared: usize) -> usize {
    if most_prepared == 0 {
        0
    } else {
        2 * most_prepared + 64
    }
}

#[repr(C)]
pub struct PreparedCell {
    /// 0: free.
    database: AtomicU32,
    length: AtomicU32,
    name: [AtomicU8; LONGEST],
    brings: BringsCell,
    hash: AtomicU64,
    /// Grows from place taken to place taken.
    serial: AtomicU64,
    /// The databases that the transaction keeps workers out of; 0 behind them. Not their slots, which may be others' by its end.
    quiesced: [AtomicU32; MOST_QUIESCED],
}

/// What is to be done when a prepared transaction ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// It was prepared in this life of the server.
    pub is_known: bool,
    pub brings: Brings,
    /// The databases that workers may enter again.
    pub quiesced: Vec<u32>,
}

impl PreparedCell {
    fn is(&self, database: u32, hash: u64, name: &[u8]) -> bool {
        self.database.load(Ordering::Relaxed) == database
            && self.hash.load(Ordering::Relaxed) == hash
            && self.length.load(Ordering::Relaxed) as usize == name.len()
            && self
                .name
                .iter()
                .zip(name)
                .all(|(cell, byte)| cell.load(Ordering::Relaxed) == *byte)
    }
}

impl Shared {
    /// The transaction is prepared, and keeps workers out of these databases until it ends. False where it found no place: it
    /// keeps nobody out then. May be called in commit callbacks.
    pub fn note_prepared(
        &self,
        database: u32,
        name: &[u8],
        brings: &Brings,
        quiesced: &[u32],
    ) -> bool {
        if name.is_empty() || name.len() > LONGEST || quiesced.len() > MOST_QUIESCED {
            return false;
        }
        let hash = fnv::hash(name);
        self.slots.with(|| {
            let cells = self.prepared();
            let is_free = |cell: &&PreparedCell| cell.database.load(Ordering::Relaxed) == 0;
            let Some(cell) = cells.iter().find(is_free) else {
                return false;
            };
            let serial = self.prepared_so_far.fetch_add(1, Ordering::Relaxed);
            cell.serial.store(serial, Ordering::Relaxed);
            cell.hash.store(hash, Ordering::Relaxed);
            cell.length.store(name.len() as u32, Ordering::Relaxed);
            for (letter, byte) in cell.name.iter().zip(name) {
                letter.store(*byte, Ordering::Relaxed);
            }
            cell.brings.set(brings);
            let none = std::iter::repeat(&0);
            for (kept, oid) in cell.quiesced.iter().zip(quiesced.iter().chain(none)) {
                kept.store(*oid, Ordering::Relaxed);
            }
            cell.database.store(database, Ordering::Relaxed);
            true
        })
    }

    /// Which transaction of this name is prepared: asked before it is ended, because then another may be prepared under the name.
    /// None: it was not noted.
    pub fn find_prepared(&self, database: u32, name: &[u8]) -> Option<u64> {
        let hash = fnv::hash(name);
        self.slots.with(|| {
            let cells = self.prepared().iter();
            let named = cells.filter(|cell| cell.is(database, hash, name));
            // Of an older one somebody else is about to say that it has ended.
            named.map(|cell| cell.serial.load(Ordering::Relaxed)).max()
        })
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED has ended the transaction that was found.
    pub fn finish_prepared(&self, found: Option<u64>) -> Owed {
        let noted = found.and_then(|serial| {
            self.slots.with(|| {
                let cell = self.prepared().iter().find(|cell| {
                    cell.database.load(Ordering::Relaxed) != 0
                        && cell.serial.load(Ordering::Relaxed) == serial
                })?;
                let mut quiesced = [0; MOST_QUIESCED];
                for (oid, kept) in quiesced.iter_mut().zip(&cell.quiesced) {
                    *oid = kept.load(Ordering::Relaxed);
                }
                cell.database.store(0, Ordering::Relaxed);
                Some((cell.brings.get(), quiesced))
            })
        });
        Owed {
            is_known: noted.is_some(),
            brings: noted.map_or(Brings::Anything, |noted| noted.0),
            quiesced: noted.map_or_else(Vec::new, |noted| {
                noted.1.into_iter().take_while(|oid| *oid != 0).collect()
            }),
        }
    }
}
