//! Cancels that were promised to their callers and must outlive the batch that held the job: none is lost, and
//! the job begins nowhere from their commit on.
//!
//! Who asks for the cancel of a job that an executor holds first writes the request where all can read it, then looks
//! whether the job's outcome is accepted. The executor does the reverse: it publishes that it begins the job, or accepts its
//! outcome, and then reads the requests. So one of the two sees the other. A caller that finds no accepted outcome may
//! promise the cancel: until its transaction ends nobody completes, discards or begins the job. A caller that finds one
//! withdraws the request and waits for the outcome. An executor that lets go of a row, by a commit or a rollback, first says
//! that it decides nothing any more, because another may have the row before the batch is closed. `core/tests/cancel_model/`
//! walks every interleaving.
//!
//! With the commit of the asking transaction the request is a promise, carried out by the executor that holds the job, at
//! the end of its batch; what nobody holds is the scheduler's. It is in a table too (`job::promise`), because a crash
//! leaves nothing here; what is asked for here and promised there no more was carried out before.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use pushy_core::batch::BatchPlan;
use pushy_core::share;

/// As many as some executors can hold jobs at a time; one more is refused.
pub const CELLS: usize = 72 * BatchPlan::MAX_JOBS as usize;

const FREE: i64 = 0;
const KEPT: i64 = i64::MIN;

/// How far the cancel of a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// By a transaction that may still roll back.
    Open,
    Committed,
}

/// A cancel that was asked for, its cell, and the number of the request there, which no other has: the cell may be another's by the time
/// that somebody gives this one up, and be for the same job, because one that was cancelled is made to run again, and cancelled again.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    pub job: i64,
    pub cell: usize,
    request: i64,
}

/// The cells, for all databases.
#[repr(C)]
pub struct Cancels {
    /// Places taken.
    open: AtomicU64,
    /// Where the search for a free place begins: those before it are taken, as a rule.
    free_from: AtomicU64,
    /// Places from this on have never been taken.
    used: AtomicU64,
    /// The number of the last request.
    last: AtomicI64,
    cells: [CancelCell; CELLS],
}

#[repr(C)]
struct CancelCell {
    /// The number of the request, below zero until it is committed.
    request: AtomicI64,
    job: AtomicI64,
    database: AtomicU32,
    /// Who asked.
    role: AtomicU32,
}

/// A request as it was at one moment.
struct Reading {
    request: i64,
    job: i64,
    database: u32,
    role: u32,
}

impl Reading {
    fn asked(&self) -> Asked {
        if self.request > FREE {
            Asked::Committed
        } else {
            Asked::Open
        }
    }
}

impl CancelCell {
    /// None: there is none, or it has not been made yet.
    fn read(&self) -> Option<Reading> {
        // Bounded: by the requests that come and go in this cell meanwhile.
        loop {
            let request = self.request.load(Ordering::SeqCst);
            if request == FREE || request == KEPT {
                return None;
            }
            let reading = Reading {
                request,
                job: self.job.load(Ordering::SeqCst),
                database: self.database.load(Ordering::SeqCst),
                role: self.role.load(Ordering::SeqCst),
            };
            if self.request.load(Ordering::SeqCst) == request {
                return Some(reading);
            }
        }
    }
}

impl Cancels {
    /// Places that are taken on behalf of a role.
    pub fn count_of(&self, role: u32) -> u64 {
        let cells = self.cells[..self.used.load(Ordering::SeqCst) as usize].iter();
        let taken = cells.filter_map(CancelCell::read);
        taken.filter(|reading| reading.role == role).count() as u64
    }

    pub fn count_free(&self) -> u64 {
        (CELLS as u64).saturating_sub(self.open.load(Ordering::SeqCst))
    }

    /// Asks on behalf of a role for the cancel of a job; None when the role has its share of the places, or all are taken.
    /// `unbound`: it has no share but all.
    pub fn ask(&self, role: u32, unbound: bool, database: u32, job: i64) -> Option<Promise> {
        if !unbound && !share::may_take(self.count_of(role), self.count_free()) {
            return None;
        }
        let from = self.free_from.load(Ordering::SeqCst) as usize;
        let at = (from..CELLS).chain(0..from).find(|at| {
            self.cells[*at]
                .request
                .compare_exchange(FREE, KEPT, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
        })?;
        self.free_from
            .store((at + 1) as u64 % CELLS as u64, Ordering::SeqCst);
        self.used.fetch_max(at as u64 + 1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let cell = &self.cells[at];
        cell.database.store(database, Ordering::SeqCst);
        cell.role.store(role, Ordering::SeqCst);
        cell.job.store(job, Ordering::SeqCst);
        let request = self.last.fetch_add(1, Ordering::SeqCst) + 1;
        cell.request.store(-request, Ordering::SeqCst);
        Some(Promise {
            job,
            cell: at,
            request,
        })
    }

    /// The same for a cancel that was promised in the server's life before; None when all places are taken.
    pub fn ask_again(&self, database: u32, job: i64) -> Option<Promise> {
        const NOBODY: u32 = 0;
        self.ask(NOBODY, true, database, job)
    }

    /// Whoever makes a cancelled job run again forgets that its cancel was promised.
    pub fn forget_job(&self, database: u32, job: i64) {
        for promise in self.of(database).filter(|promise| promise.job == job) {
            self.carried_out(promise);
        }
    }

    /// The request was taken back, or rolled back.
    pub fn withdraw(&self, promise: Promise) {
        self.free(promise.cell, -promise.request);
    }

    /// The request is committed.
    pub fn commit(&self, promise: Promise) {
        self.cells[promise.cell]
            .request
            .store(promise.request, Ordering::SeqCst);
    }

    /// The job was cancelled, or is gone. By whoever finds that: more than one may.
    pub fn carried_out(&self, promise: Promise) {
        self.free(promise.cell, promise.request);
    }

    fn free(&self, at: usize, taken: i64) {
        let freed = self.cells[at].request.compare_exchange(
            taken,
            FREE,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if freed.is_ok() {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
        self.free_from.fetch_min(at as u64, Ordering::SeqCst);
    }

    /// Whether a cancel of the job is requested and not carried out. Publish your own step first (see above), then ask.
    pub fn asked(&self, database: u32, job: i64) -> Option<Asked> {
        // Of two requests the committed one counts.
        let mut open = None;
        for (_, reading) in self.taken(database) {
            match reading.asked() {
                _ if reading.job != job => {}
                Asked::Committed => return Some(Asked::Committed),
                Asked::Open => open = Some(Asked::Open),
            }
        }
        open
    }

    /// Whether somebody asks whose transaction has not ended.
    pub fn is_open(&self, database: u32, job: i64) -> bool {
        let mut taken = self.taken(database);
        taken.any(|(_, reading)| reading.job == job && reading.asked() == Asked::Open)
    }

    /// Whether it was committed and is not carried out yet.
    pub fn includes(&self, database: u32, job: i64) -> bool {
        self.asked(database, job) == Some(Asked::Committed)
    }

    /// What was committed in a database and is not carried out yet.
    pub fn of(&self, database: u32) -> impl Iterator<Item = Promise> + '_ {
        let committed = self
            .taken(database)
            .filter(|(_, reading)| reading.asked() == Asked::Committed);
        committed.map(|(cell, reading)| Promise {
            job: reading.job,
            cell,
            request: reading.request,
        })
    }

    fn taken(&self, database: u32) -> impl Iterator<Item = (usize, Reading)> + '_ {
        let used = match self.open.load(Ordering::SeqCst) {
            0 => 0,
            _ => self.used.load(Ordering::SeqCst) as usize,
        };
        let cells = self.cells[..used].iter().enumerate();
        let taken = cells.filter_map(|(at, cell)| Some((at, cell.read()?)));
        taken.filter(move |(_, reading)| reading.database == database)
    }

    /// The jobs of a database are gone: its extension or itself was dropped. May be called in commit callbacks.
    pub fn forget(&self, database: u32) {
        for promise in self.of(database) {
            self.carried_out(promise);
        }
    }
}
