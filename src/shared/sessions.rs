//! Sessions to which claims are bound: each is entered before its first such claim can be committed, and removed when it ends.
//!
//! A session's number is never given twice: the number of the server's life, drawn anew at each start, and above it which session of
//! that life it was. So a number that is in a table and not here is that of a session that has ended; and whether the server
//! has ended with it. Sessions count in their own database only, because a copy of it in the same server has their numbers, too. `core/tests/lease_model/` walks every interleaving.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::Shared;
use crate::pg::per_process::PerProcess;
use crate::pg::{database, latch, random, shmem};

/// Places, one for each process that the server may have.
pub(super) fn cells() -> usize {
    latch::most_processes()
}

/// A session.
#[repr(C)]
pub(super) struct SessionCell {
    /// 0: it is not entered.
    number: AtomicU64,
    database: AtomicU32,
}

impl SessionCell {
    /// The number of the session, where it is one of this database.
    fn number_here(&self) -> Option<i64> {
        let number = self.number.load(Ordering::SeqCst);
        let is_here = || self.database.load(Ordering::SeqCst) == database::current();
        (number != 0 && is_here()).then_some(number as i64)
    }
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
            cell.database.store(database::current(), Ordering::SeqCst);
            cell.number
                .store(life << 32 | number & 0xffff_ffff, Ordering::SeqCst);
        }
        cell.number.load(Ordering::SeqCst) as i64
    }

    /// Whether a session of this database goes on. To be asked after its number was read in a table.
    pub fn is_session(&self, session: i64) -> bool {
        let is = |cell: &SessionCell| cell.number_here() == Some(session);
        self.sessions().iter().any(is)
    }

    /// Sessions of this database that go on.
    pub fn sessions_now(&self) -> Vec<i64> {
        let sessions = self.sessions().iter();
        sessions.filter_map(SessionCell::number_here).collect()
    }

    /// Whether a session was of the server's life of now.
    pub fn is_of_this_life(&self, session: i64) -> bool {
        session as u64 >> 32 == self.life.load(Ordering::Relaxed)
    }
}

/// The session ends, its transaction is over.
fn leave() {
    let Some(shared) = super::get() else { return };
    let cell = &shared.sessions()[latch::my_number()];
    cell.number.store(0, Ordering::SeqCst);
    // In this order: the scheduler takes the word before it reads who goes on.
    if let Some(place) = shared.find_database(database::current()) {
        place.sessions_known.store(false, Ordering::SeqCst);
        shared.announce_due(place, 0);
    }
}
