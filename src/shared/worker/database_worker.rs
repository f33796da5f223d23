//! A worker that a database has one of: its scheduler, its relay.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};

use pushy_core::backoff;
use pushy_core::slots::{self, Doing};

use crate::pg::latch::ProcessCell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Life {
    Absent = 0,
    /// The launcher has registered one, whose process has not entered itself yet.
    Starting = 1,
    /// The process has entered itself, and connects.
    Connecting = 2,
    Here = 3,
}

impl Life {
    fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Starting,
            2 => Self::Connecting,
            3 => Self::Here,
            _ => Self::Absent,
        }
    }
}

/// What a process that was started for a database is given: the database, and which of its workers is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerStart {
    pub database: u32,
    generation: u32,
}

impl WorkerStart {
    pub fn to_arg(self) -> usize {
        (self.generation as usize) << 32 | self.database as usize
    }

    pub fn of_arg(arg: usize) -> Self {
        Self {
            database: arg as u32,
            generation: (arg >> 32) as u32,
        }
    }
}

#[repr(C)]
pub struct DatabaseWorker {
    /// The state, and above its 8 bits how many were started. As with executors' slots: from `Connecting` on only the
    /// process itself says that it is gone.
    life: AtomicU64,
    process: ProcessCell,
    pid: AtomicI32,
    /// When it came (µs).
    pub(in crate::shared) since: AtomicI64,
    /// When (µs) the launcher registered it.
    pub(in crate::shared) starting_since: AtomicI64,
    /// How many in a row did not come up, and before when (µs) no other is tried.
    failures: AtomicU32,
    pub(in crate::shared) retry_at: AtomicI64,
    /// It waits for more to do.
    rests: AtomicBool,
    /// When (µs) it was asked to leave, because another lacks a worker slot of the server's; 0: it was not.
    pub(in crate::shared) asked_at: AtomicI64,
}

fn life(generation: u32, state: Life) -> u64 {
    u64::from(generation) << 8 | state as u64
}

impl DatabaseWorker {
    /// For another database. A process of the last one that is still there finds that it is not meant.
    pub fn reset(&self) {
        let Self {
            life: _,
            process,
            pid,
            since: _,
            starting_since,
            failures,
            retry_at,
            rests,
            asked_at,
        } = self;
        rests.store(false, Ordering::SeqCst);
        asked_at.store(0, Ordering::SeqCst);
        self.begin(Life::Absent);
        process.leave();
        pid.store(0, Ordering::SeqCst);
        starting_since.store(0, Ordering::SeqCst);
        failures.store(0, Ordering::SeqCst);
        retry_at.store(0, Ordering::SeqCst);
    }

    fn state(&self) -> Life {
        Life::from_u8(self.life.load(Ordering::SeqCst) as u8)
    }

    fn begin(&self, state: Life) -> u32 {
        let generation = ((self.life.load(Ordering::SeqCst) >> 8) as u32).wrapping_add(1);
        self.life.store(life(generation, state), Ordering::SeqCst);
        generation
    }

    fn change(&self, generation: u32, from: Life, to: Life) -> bool {
        let (from, to) = (life(generation, from), life(generation, to));
        let changed = self
            .life
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
        changed.is_ok()
    }

    /// The launcher registers one, of this database; there is none.
    pub fn set_starting(&self, database: u32, now: i64) -> WorkerStart {
        self.starting_since.store(now, Ordering::SeqCst);
        self.rests.store(false, Ordering::SeqCst);
        self.asked_at.store(0, Ordering::SeqCst);
        let generation = self.begin(Life::Starting);
        WorkerStart {
            database,
            generation,
        }
    }

    /// Enters this process, the first thing it does; false when its start was given up.
    pub fn enter(&self, start: WorkerStart, pid: i32, now: i64) -> bool {
        let entered = self.change(start.generation, Life::Starting, Life::Connecting);
        if entered {
            self.process.enter();
            self.pid.store(pid, Ordering::SeqCst);
            self.since.store(now, Ordering::SeqCst);
        }
        entered
    }

    /// It has connected, or leaves because it is not wanted now, which is no failure.
    pub fn has_come(&self, start: WorkerStart) {
        self.change(start.generation, Life::Connecting, Life::Here);
    }

    /// This process leaves. One that has not come up counts as failed: its database may be gone, full, or held by somebody.
    pub fn leave(&self, start: WorkerStart, now: i64) {
        let current = self.life.load(Ordering::SeqCst);
        if (current >> 8) as u32 != start.generation {
            return;
        }
        if current as u8 == Life::Connecting as u8 {
            self.fail(now);
        }
        self.process.leave();
        self.pid.store(0, Ordering::SeqCst);
        self.life
            .store(life(start.generation, Life::Absent), Ordering::SeqCst);
    }

    /// The process that was to come has not entered itself, and from here on cannot; false when there is none such. Counts as
    /// failed.
    pub fn give_up_start(&self, now: i64) -> bool {
        let generation = (self.life.load(Ordering::SeqCst) >> 8) as u32;
        let given_up = self.change(generation, Life::Starting, Life::Absent);
        if given_up {
            self.fail(now);
        }
        given_up
    }

    /// There was no place for its process: nobody's failure, and the one before was the last.
    pub fn take_back_start(&self, last_started: i64) {
        self.starting_since.store(last_started, Ordering::SeqCst);
        let generation = (self.life.load(Ordering::SeqCst) >> 8) as u32;
        self.change(generation, Life::Starting, Life::Absent);
    }

    pub fn is_entered(&self) -> bool {
        self.process.is_entered()
    }

    pub fn wake(&self) {
        self.process.wake();
    }

    /// 0: there is none.
    pub fn pid(&self) -> i32 {
        self.pid.load(Ordering::SeqCst)
    }

    pub fn since(&self) -> i64 {
        self.since.load(Ordering::SeqCst)
    }

    /// Neither there nor on its way.
    pub fn is_absent(&self) -> bool {
        self.state() == Life::Absent
    }

    /// Since when (µs) it is on its way, if it has not come up.
    pub fn coming_since(&self) -> Option<i64> {
        matches!(self.state(), Life::Starting | Life::Connecting)
            .then(|| self.starting_since.load(Ordering::SeqCst))
    }

    pub fn is_connecting(&self) -> bool {
        self.state() == Life::Connecting
    }

    /// When (µs) the last one was started; 0: none was.
    pub fn last_started(&self) -> i64 {
        self.starting_since.load(Ordering::SeqCst)
    }

    /// This process waits for more to do, or goes on.
    pub fn set_rests(&self, rests: bool) {
        self.rests.store(rests, Ordering::SeqCst);
    }

    pub fn rests(&self) -> bool {
        self.rests.load(Ordering::SeqCst)
    }

    /// Asks it to leave as soon as what it is about is done, and to come again in its turn.
    pub fn ask_for_slot(&self, now: i64) {
        self.asked_at.store(now, Ordering::SeqCst);
        self.wake();
    }

    pub fn is_asked_for_slot(&self) -> bool {
        self.asked_at.load(Ordering::SeqCst) != 0
    }

    /// As one that takes a worker slot of the server's; None: there is none.
    pub fn in_slot(&self) -> Option<slots::Worker> {
        let doing = match self.state() {
            Life::Absent => return None,
            Life::Starting | Life::Connecting => Doing::Coming,
            Life::Here if self.rests.load(Ordering::SeqCst) => Doing::Rests,
            Life::Here => Doing::Works,
        };
        let asked_at = self.asked_at.load(Ordering::SeqCst);
        Some(slots::Worker {
            started_at: self.last_started(),
            doing,
            asked_at: (asked_at != 0).then_some(asked_at),
        })
    }

    /// No other is tried before this time (µs).
    pub fn put_off(&self, until: i64) {
        self.retry_at.store(until, Ordering::SeqCst);
    }

    fn fail(&self, now: i64) {
        let failures = self.failures.fetch_add(1, Ordering::SeqCst);
        self.retry_at
            .store(now + backoff::START.delay_us(failures), Ordering::SeqCst);
    }

    pub fn has_failed(&self) -> bool {
        self.failures.load(Ordering::SeqCst) > 0
    }

    pub fn has_succeeded(&self) {
        self.failures.store(0, Ordering::SeqCst);
    }

    pub fn retry_at(&self) -> i64 {
        self.retry_at.load(Ordering::SeqCst)
    }

    /// What kept it from coming up may be gone.
    pub fn retry_now(&self) {
        self.retry_at.store(0, Ordering::SeqCst);
    }
}
