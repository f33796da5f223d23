//! Transactions that were prepared since the server started: which of them concern Pushy, by their names.
//!
//! COMMIT PREPARED does not know what its transaction had collected, so a sweep looks for whatever that may have been, and each
//! session reads its definitions anew. Transactions that have nothing to do with Pushy spare a server that, because some
//! applications prepare all of theirs. A transaction that is not found here was prepared before the server started, or by a
//! subscription of PostgreSQL's own, and counts as one that concerns Pushy.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU8, AtomicUsize, Ordering};

use super::Shared;

/// Bytes of a name: one less than GIDSIZE in access/xact.h.
const LONGEST: usize = 199;
/// Names kept.
const MOST: usize = 128;

pub struct Prepared {
    next: AtomicUsize,
    places: [Place; MOST],
}

struct Place {
    /// 0: free.
    database: AtomicU32,
    name: [AtomicU8; LONGEST],
    concerns_us: AtomicBool,
    /// How many times the transaction keeps workers out of its database.
    quiesced: AtomicU32,
}

/// What is to be done when a prepared transaction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// It was prepared in this life of the server.
    pub is_known: bool,
    pub concerns_us: bool,
    pub quiesced: u32,
}

impl Place {
    fn is_settled(&self) -> bool {
        self.concerns_us.load(Ordering::Relaxed)
    }

    fn is(&self, database: u32, name: &[u8]) -> bool {
        self.database.load(Ordering::Relaxed) == database
            && self.name.iter().enumerate().all(|(at, byte)| {
                byte.load(Ordering::Relaxed) == name.get(at).copied().unwrap_or(0)
            })
    }
}

impl Shared {
    /// PREPARE TRANSACTION begins: answers its place for `settle_prepared`.
    pub fn note_prepared(&self, database: u32, name: &[u8]) -> Option<usize> {
        if name.is_empty() || name.len() > LONGEST {
            return None;
        }
        let Prepared { next, places } = &self.prepared;
        self.slots.with(|| {
            let first = |is_fit: &dyn Fn(&Place) -> bool| places.iter().position(is_fit);
            // The place of an attempt of this name that has failed since. A settled place stays, because its transaction is
            // prepared.
            let index = first(&|place| place.is(database, name) && !place.is_settled())
                .or_else(|| first(&|place| place.database.load(Ordering::Relaxed) == 0))
                .unwrap_or_else(|| next.fetch_add(1, Ordering::Relaxed) % places.len());
            let place = &places[index];
            place.database.store(database, Ordering::Relaxed);
            for (at, byte) in place.name.iter().enumerate() {
                byte.store(name.get(at).copied().unwrap_or(0), Ordering::Relaxed);
            }
            place.concerns_us.store(false, Ordering::Relaxed);
            place.quiesced.store(0, Ordering::Relaxed);
            Some(index)
        })
    }

    /// The transaction is prepared, and concerns Pushy. Fit for commit callbacks.
    pub fn settle_prepared(&self, place: usize, database: u32, quiesced: u32) {
        let place = &self.prepared.places[place];
        place.quiesced.store(quiesced, Ordering::Relaxed);
        place.concerns_us.store(true, Ordering::Relaxed);
        // Again: another transaction of this name may have ended in between, and have freed all places of the name.
        place.database.store(database, Ordering::Relaxed);
    }

    /// COMMIT PREPARED or ROLLBACK PREPARED has ended the transaction.
    pub fn finish_prepared(&self, database: u32, name: &[u8]) -> Owed {
        self.slots.with(|| {
            let mut owed: Option<Owed> = None;
            for place in &self.prepared.places {
                if place.is(database, name) {
                    place.database.store(0, Ordering::Relaxed);
                    let before = owed.map_or(0, |owed| owed.quiesced);
                    owed = Some(Owed {
                        is_known: true,
                        concerns_us: place.is_settled()
                            || owed.is_some_and(|owed| owed.concerns_us),
                        quiesced: before + place.quiesced.load(Ordering::Relaxed),
                    });
                }
            }
            owed.unwrap_or(Owed {
                is_known: false,
                concerns_us: true,
                quiesced: 0,
            })
        })
    }
}
