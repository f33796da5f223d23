//! Transactions that were prepared since the server started: which of them concern Pushy, by their names.
//!
//! COMMIT PREPARED does not know what its transaction had collected, so a sweep looks for whatever that may have been, and each
//! session reads its definitions anew. Transactions that have nothing to do with Pushy spare a server that, because some
//! applications prepare all of theirs. A transaction that is not found here was prepared before the server started, or by a
//! subscription of PostgreSQL's own, and counts as one that concerns Pushy.
//!
//! A place is taken when PREPARE has succeeded, before anybody else can end the transaction, and none is ever taken away: there
//! are as many as transactions can be prepared, and more for those who have just ended one and not said so here.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicU8, Ordering};

use pushy_core::fnv;

use super::database::MAX_DATABASES;
use super::Shared;

/// Bytes of a name: one less than GIDSIZE in access/xact.h.
const LONGEST: usize = 199;
const WORDS: usize = MAX_DATABASES / 64;

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
    concerns_us: AtomicBool,
    hash: AtomicU64,
    /// Grows from place taken to place taken.
    serial: AtomicU64,
    /// The databases, by their slots, that the transaction keeps workers out of.
    quiesced: [AtomicU64; WORDS],
}

/// What is to be done when a prepared transaction ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// It was prepared in this life of the server.
    pub is_known: bool,
    pub concerns_us: bool,
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
        concerns_us: bool,
        quiesced: &[u32],
    ) -> bool {
        if name.is_empty() || name.len() > LONGEST {
            return false;
        }
        let hash = fnv::hash(name);
        let is_quiesced = |oid: u32| oid != 0 && quiesced.contains(&oid);
        let slots = self.databases.iter().enumerate();
        let mut words = [0u64; WORDS];
        for (slot, _) in slots.filter(|(_, database_slot)| is_quiesced(database_slot.oid())) {
            words[slot / 64] |= 1 << (slot % 64);
        }
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
            cell.concerns_us.store(concerns_us, Ordering::Relaxed);
            for (bits, word) in cell.quiesced.iter().zip(words) {
                bits.store(word, Ordering::Relaxed);
            }
            cell.database.store(database, Ordering::Relaxed);
            true
        })
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED has ended the transaction. Of two of a name the older one: the newer was prepared
    /// before this was said.
    pub fn finish_prepared(&self, database: u32, name: &[u8]) -> Owed {
        let hash = fnv::hash(name);
        let found = self.slots.with(|| {
            let cells = self.prepared().iter();
            let cell = cells
                .filter(|cell| cell.is(database, hash, name))
                .min_by_key(|cell| cell.serial.load(Ordering::Relaxed))?;
            let mut words = [0u64; WORDS];
            for (word, cell) in words.iter_mut().zip(&cell.quiesced) {
                *word = cell.load(Ordering::Relaxed);
            }
            cell.database.store(0, Ordering::Relaxed);
            Some((cell.concerns_us.load(Ordering::Relaxed), words))
        });
        let Some((concerns_us, words)) = found else {
            return Owed {
                is_known: false,
                concerns_us: true,
                quiesced: Vec::new(),
            };
        };
        let is_kept = |slot: usize| words[slot / 64] >> (slot % 64) & 1 != 0;
        let databases = self.databases.iter().enumerate();
        Owed {
            is_known: true,
            concerns_us,
            quiesced: databases
                .filter(|(slot, database_slot)| is_kept(*slot) && database_slot.oid() != 0)
                .map(|(_, database_slot)| database_slot.oid())
                .collect(),
        }
    }
}
