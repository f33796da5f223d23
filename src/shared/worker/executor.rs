//! One slot per executor: whom it serves, what it runs, what is asked of it.

use std::cell::Cell;
use std::sync::atomic::{
    AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, AtomicU8, Ordering,
};

use pushy_core::batch::BatchPlan;
use pushy_core::capacity::{ExecutorKey, MOST_AS_A_RULE, MOST_RESERVED};

use crate::pg::latch::ProcessCell;
use crate::pg::per_process::PerProcess;
use crate::pg::spinlock::Spinlock;

pub use super::executors::Executors;
pub use super::progress::{Progress, MESSAGE_BYTES};

/// As many as the settings pushy.max_executors and pushy.reserved_executors allow together.
pub const MAX_EXECUTORS: usize = MOST_AS_A_RULE + MOST_RESERVED;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExecutorState {
    Free = 0,
    /// Reserved by the launcher; the process is on its way, and has not entered itself yet.
    Starting = 1,
    Busy = 2,
    Idle = 3,
    /// On its way out; takes no more work.
    Stopping = 4,
    /// The process has entered itself, and connects.
    Connecting = 5,
}

impl ExecutorState {
    fn from_u8(value: u8) -> Self {
        match value {
            1 => Self::Starting,
            2 => Self::Busy,
            3 => Self::Idle,
            4 => Self::Stopping,
            5 => Self::Connecting,
            _ => Self::Free,
        }
    }

    /// Its process has not come up yet.
    pub fn is_coming(self) -> bool {
        matches!(self, Self::Starting | Self::Connecting)
    }
}

/// What a process that was started for a slot is given: the slot, and which of its lives is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutorStart {
    pub slot: usize,
    generation: u64,
}

impl ExecutorStart {
    pub fn to_arg(self) -> usize {
        (self.generation as usize) << 16 | self.slot
    }

    pub fn of_arg(arg: usize) -> Self {
        const { assert!(MAX_EXECUTORS <= 1 << 16) }
        Self {
            slot: arg & 0xffff,
            generation: arg as u64 >> 16,
        }
    }
}

#[repr(C, align(64))]
pub struct ExecutorSlot {
    /// The state, and above its 8 bits how many times the slot was reserved. A slot that is `Starting` is anybody's who takes
    /// it: the process of this generation enters itself, or the launcher gives the start up. From `Connecting` on only the
    /// process itself frees it, so that no two processes ever share one.
    life: AtomicU64,
    pub database: AtomicU32,
    pub role: AtomicU32,
    pub process: ProcessCell,
    pub pid: AtomicI32,
    pub started_at: AtomicI64,
    /// Since when (µs) it has had nothing to do, while it is idle.
    pub idle_since: AtomicI64,
    /// It was asked to leave (quiesce, fairness, shutdown): its running job is not charged.
    pub stop_requested: AtomicBool,
    /// When (µs) it was asked first; set before.
    pub(in crate::shared) asked_at: AtomicI64,
    /// Its process has connected; kept when the slot is free again.
    pub came_up: AtomicBool,
    /// A batch is open; see `shared.quarantine`.
    pub in_batch: AtomicBool,
    /// It has taken watermarks and not announced yet what it leaves of them, or has locked jobs and not published yet
    /// which.
    pub claiming: AtomicBool,
    pub queue_id: AtomicI32,
    /// The job running now, 0: none, and its attempt and start.
    pub job: AtomicI64,
    pub attempt: AtomicI32,
    pub job_started_at: AtomicI64,
    /// The last job that was to be cancelled while it ran here: its process insists until it has stopped.
    pub cancelled: AtomicI64,
    pub jobs_done: AtomicU64,
    /// Since when (µs) its batch is open; 0: none is.
    pub batch_began: AtomicI64,
    /// Jobs claimed by the open batch, running ones included; `batch_length` are valid.
    pub(super) batch: [AtomicI64; BatchPlan::MAX_JOBS as usize],
    pub(super) batch_length: AtomicU32,
    /// The number of the open batch, and of how many of its jobs, from the first on, the outcome is accepted: no cancel
    /// reaches these any more, they commit or roll back with the batch.
    pub(super) batch_number: AtomicU64,
    pub(super) accepted: AtomicU32,
    /// A part of the token of the lease by which it holds a procedure's job, as all can see from before the lease is committed; 0: it
    /// holds none.
    pub(super) hold: AtomicU64,
    /// Guards what follows.
    pub(super) lock: Spinlock,
    /// Fraction done as bits of an f64; the message in the database's encoding.
    pub(super) progress: AtomicU64,
    pub(super) message: [AtomicU8; MESSAGE_BYTES],
    pub(super) message_length: AtomicU32,
}

impl ExecutorSlot {
    pub(super) fn init(&self) {
        self.progress.store(f64::NAN.to_bits(), Ordering::Relaxed);
    }

    pub fn state(&self) -> ExecutorState {
        ExecutorState::from_u8(self.life.load(Ordering::SeqCst) as u8)
    }

    /// By the process whose slot it is.
    pub fn set_state(&self, state: ExecutorState) {
        let life = self.life.load(Ordering::SeqCst);
        self.life
            .store(life & !0xff | state as u64, Ordering::SeqCst);
    }

    fn change(&self, from: ExecutorState, to: ExecutorState) -> bool {
        let life = self.life.load(Ordering::SeqCst);
        ExecutorState::from_u8(life as u8) == from
            && self
                .life
                .compare_exchange(
                    life,
                    life & !0xff | to as u64,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                )
                .is_ok()
    }

    /// Whom it serves.
    pub fn executor_key(&self) -> ExecutorKey {
        ExecutorKey {
            database: self.database.load(Ordering::SeqCst),
            role: self.role.load(Ordering::SeqCst),
        }
    }

    pub fn serves(&self, database: u32, role: u32) -> bool {
        self.database.load(Ordering::SeqCst) == database && self.role.load(Ordering::SeqCst) == role
    }

    /// Reserves this free slot, of this number, for a role in a database; the launcher only.
    pub fn reserve(&self, slot: usize, database: u32, role: u32) -> Option<ExecutorStart> {
        if self.state() != ExecutorState::Free {
            return None;
        }
        self.database.store(database, Ordering::SeqCst);
        self.role.store(role, Ordering::SeqCst);
        self.pid.store(0, Ordering::SeqCst);
        self.stop_requested.store(false, Ordering::SeqCst);
        self.asked_at.store(0, Ordering::SeqCst);
        self.came_up.store(false, Ordering::SeqCst);
        self.jobs_done.store(0, Ordering::SeqCst);
        self.queue_id.store(0, Ordering::SeqCst);
        self.started_at
            .store(crate::pg::clock::now().0, Ordering::SeqCst);
        self.leave_job();
        self.clear_batch();
        let generation = (self.life.load(Ordering::SeqCst) >> 8) + 1;
        self.life.store(
            generation << 8 | ExecutorState::Starting as u64,
            Ordering::SeqCst,
        );
        Some(ExecutorStart { slot, generation })
    }

    /// Enters this process, the first thing it does; false when its start was given up, and the slot may be another's.
    pub fn enter(&self, start: ExecutorStart, pid: i32) -> bool {
        let life = |state: ExecutorState| start.generation << 8 | state as u64;
        let (starting, connecting) = (
            life(ExecutorState::Starting),
            life(ExecutorState::Connecting),
        );
        let entered =
            self.life
                .compare_exchange(starting, connecting, Ordering::SeqCst, Ordering::SeqCst);
        if entered.is_ok() {
            self.process.enter();
            self.pid.store(pid, Ordering::SeqCst);
        }
        entered.is_ok()
    }

    /// Frees the slot of a process that has not entered itself, and from here on cannot; false when it has.
    pub fn give_up_start(&self) -> bool {
        let given_up = self.change(ExecutorState::Starting, ExecutorState::Stopping);
        if given_up {
            self.release();
        }
        given_up
    }

    /// Frees the slot; nothing of it is valid afterwards. By the process whose it is.
    pub fn release(&self) {
        self.leave_job();
        self.clear_batch();
        self.clear_hold();
        self.process.leave();
        self.in_batch.store(false, Ordering::SeqCst);
        self.claiming.store(false, Ordering::SeqCst);
        self.pid.store(0, Ordering::SeqCst);
        self.database.store(0, Ordering::SeqCst);
        self.role.store(0, Ordering::SeqCst);
        self.set_state(ExecutorState::Free);
    }

    /// Idle → busy by another process, which sets the latch: each wake-up is given once.
    pub fn wake_if_idle(&self) -> bool {
        let woken = self.change(ExecutorState::Idle, ExecutorState::Busy);
        if woken {
            self.process.wake();
        }
        woken
    }

    /// Busy → idle by itself; the caller looks for work once more before it sleeps.
    pub fn become_idle(&self) {
        self.idle_since
            .store(crate::pg::clock::now().0, Ordering::SeqCst);
        self.change(ExecutorState::Busy, ExecutorState::Idle);
    }

    /// Idle → busy by itself; also when somebody else has done so.
    pub fn become_busy(&self) {
        self.change(ExecutorState::Idle, ExecutorState::Busy);
    }

    /// Idle → stopping: from then on no process gives it work. False when one just has.
    pub fn retire(&self) -> bool {
        self.change(ExecutorState::Idle, ExecutorState::Stopping)
    }

    pub fn ask_to_stop(&self) {
        self.note_asked();
        self.process.wake();
    }

    /// True: nobody has asked it before.
    pub fn note_asked(&self) -> bool {
        let now = crate::pg::clock::now().0;
        let (first, same) = (Ordering::SeqCst, Ordering::SeqCst);
        let _ = self.asked_at.compare_exchange(0, now, first, same);
        !self.stop_requested.swap(true, Ordering::SeqCst)
    }

    /// When (µs) it was asked to leave; None: it was not.
    pub fn asked_to_stop_at(&self) -> Option<i64> {
        let is_asked = self.stop_requested.load(Ordering::SeqCst);
        is_asked.then(|| self.asked_at.load(Ordering::SeqCst))
    }

    pub fn enter_job(&self, queue_id: i32, job: i64, attempt: i32, now: i64) {
        self.queue_id.store(queue_id, Ordering::Relaxed);
        self.attempt.store(attempt, Ordering::Relaxed);
        self.job_started_at.store(now, Ordering::Relaxed);
        // A plain load first: most jobs are cancelled by nobody.
        if self.cancelled.load(Ordering::Relaxed) != 0 {
            self.cancelled.store(0, Ordering::Relaxed);
        }
        self.job.store(job, Ordering::SeqCst);
    }

    pub fn leave_job(&self) {
        self.job.store(0, Ordering::SeqCst);
        if self.message_length.load(Ordering::Relaxed) != 0
            || !f64::from_bits(self.progress.load(Ordering::Relaxed)).is_nan()
        {
            self.lock.with(|| {
                self.progress.store(f64::NAN.to_bits(), Ordering::Relaxed);
                self.message_length.store(0, Ordering::Relaxed);
            });
        }
    }
}

static MINE: PerProcess<Cell<Option<usize>>> = PerProcess::new(Cell::new(None));

/// The slot of this process, if it is an executor.
pub fn mine() -> Option<usize> {
    MINE.get()
}

pub fn set_mine(slot: Option<usize>) {
    MINE.set(slot);
}
