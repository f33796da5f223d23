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
    /// Its number as a transaction.
    xid: AtomicU32,
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
        xid: u32,
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
            cell.xid.store(xid, Ordering::Relaxed);
            let none = std::iter::repeat(&0);
            for (kept, oid) in cell.quiesced.iter().zip(quiesced.iter().chain(none)) {
                kept.store(*oid, Ordering::Relaxed);
            }
            cell.database.store(database, Ordering::Relaxed);
            true
        })
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED of this name has ended a transaction. Which one is seen by `is_running` alone: another of
    /// the name may be prepared by now, and of one before somebody else may be about to say that it has ended. Who comes first says it
    /// of all that have.
    pub fn finish_prepared(
        &self,
        database: u32,
        name: &[u8],
        is_running: impl Fn(u32) -> bool,
    ) -> Owed {
        let hash = fnv::hash(name);
        let (mut brings, mut quiesced) = (None, Vec::new());
        let mut from = 0;
        while let Some((serial, xid)) = self.next_prepared(database, hash, name, from) {
            from = serial + 1;
            // Not under the lock.
            if is_running(xid) {
                continue;
            }
            if let Some((its, databases)) = self.take_prepared(serial) {
                brings = Some(match (brings, its) {
                    (None | Some(Brings::Nothing), its) => its,
                    (Some(brings), Brings::Nothing) => brings,
                    _ => Brings::Anything,
                });
                quiesced.extend(databases.into_iter().take_while(|oid| *oid != 0));
            }
        }
        Owed {
            is_known: brings.is_some(),
            brings: brings.unwrap_or(Brings::Anything),
            quiesced,
        }
    }

    /// The first that was noted under this name from a serial on, and its number as a transaction.
    fn next_prepared(
        &self,
        database: u32,
        hash: u64,
        name: &[u8],
        from: u64,
    ) -> Option<(u64, u32)> {
        self.slots.with(|| {
            let named = self
                .prepared()
                .iter()
                .filter(|cell| cell.is(database, hash, name));
            let numbers = named.map(|cell| {
                let serial = cell.serial.load(Ordering::Relaxed);
                (serial, cell.xid.load(Ordering::Relaxed))
            });
            numbers.filter(|(serial, _)| *serial >= from).min()
        })
    }

    /// Frees a place, unless somebody has.
    fn take_prepared(&self, serial: u64) -> Option<(Brings, [u32; MOST_QUIESCED])> {
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
    }
}
