//! Sessions to which claims are bound: each is entered before its first such claim can be committed, and removed when it ends.
//!
//! A session's number is never given twice: the number of the server's life, drawn anew at each start, and above it which session of
//! that life it was. So a number that is in a table and not here is that of a session that has ended; and whether the server
//! has ended with it. `core/tests/lease_model/` walks every interleaving.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Shared;
use crate::pg::per_process::PerProcess;
use crate::pg::{database, latch, random, shmem};

/// Places, one for each process that the server may have.
pub(super) fn cells() -> usize {
    latch::most_processes()
}

static ENTERED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

impl Shared {
    pub(super) fn init_sessions(&self) {
        self.life.store(random::life(), Ordering::Relaxed);
    }

    /// The number of this session, which is entered from here on.
    pub fn enter_session(&self) -> i64 {
        let cell = &self.sessions()[latch::my_number()];
        if !ENTERED.replace(true) {
            let number = self.sessions_so_far.fetch_add(1, Ordering::SeqCst) + 1;
            let life = self.life.load(Ordering::Relaxed);
            shmem::at_exit(leave);
            cell.store(life << 32 | number & 0xffff_ffff, Ordering::SeqCst);
        }
        cell.load(Ordering::SeqCst) as i64
    }

    /// Whether a session goes on. To be asked after its number was read in a table.
    pub fn is_session(&self, session: i64) -> bool {
        let is = |cell: &AtomicU64| cell.load(Ordering::SeqCst) == session as u64;
        self.sessions().iter().any(is)
    }

    /// Sessions that go on.
    pub fn sessions_now(&self) -> Vec<i64> {
        let numbers = self.sessions().iter();
        let numbers = numbers.map(|cell| cell.load(Ordering::SeqCst) as i64);
        numbers.filter(|number| *number != 0).collect()
    }

    /// Whether a session was of the server's life of now.
    pub fn is_of_this_life(&self, session: i64) -> bool {
        session as u64 >> 32 == self.life.load(Ordering::Relaxed)
    }
}

/// The session ends, its transaction is over.
fn leave() {
    let Some(shared) = super::get() else { return };
    shared.sessions()[latch::my_number()].store(0, Ordering::SeqCst);
    // In this order: the scheduler takes the word before it reads who goes on.
    if let Some(place) = shared.find_database(database::current()) {
        place.sessions_known.store(false, Ordering::SeqCst);
        shared.announce_due(place, 0);
    }
}
