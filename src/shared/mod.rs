//! What all processes of the server share: who waits, who runs what, how far each queue has been read.
//!
//! Atomics only; no pointers; every field has a meaning when zero, or is set in `init`.

pub mod cancels;
mod counters_file;
pub mod listened;
pub mod log;
pub mod numbers;
pub mod pending;
mod prepared;
mod queue;
pub mod ready_at_end;
mod sessions;
mod set_back;
pub mod unpublished;
mod untold;
pub mod watch_slot;
mod worker;

pub use queue::{queue_slot, statistics};
pub use worker::{database, database_worker, executor, executor_batch};

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicU8, Ordering};

use crate::pg::latch::ProcessCell;
use crate::pg::shmem::{self, Segment};
use crate::pg::spinlock::Spinlock;
use crate::pg::transaction;
use crate::settings;
use cancels::Cancels;
use database::{DatabaseSlot, MAX_DATABASES};
use executor::Executors;
use listened::Listened;
use log::share::{LogShare, MAX_SHARES};
use log::{Ring, RINGS};
use queue_slot::QueueSlot;
use statistics::Statistics;
use watch_slot::{WatchSlot, MAX_WATCHES};

/// The fixed part; queue slots, their ready bits and their statistics follow it.
#[repr(C)]
pub struct Shared {
    pub launcher: ProcessCell,
    /// Somebody could not be served by an idle executor: the launcher should look.
    pub demand: AtomicU64,
    /// pushy.enabled is off: the launcher starts nobody. It looks at everything after it has taken this back.
    pub closed: AtomicBool,
    /// Guards the making and freeing of queue and database slots, not their reading.
    slots: Spinlock,
    /// Guards the taking of watch slots: all are looked through, for which others need not wait to take a queue's.
    watch_slots: Spinlock,
    /// Until then (µs) the launcher need not be called for capacity for a role in a database that has an executor: it knows of no idle
    /// executor that may leave sooner.
    pub no_capacity_until: AtomicI64,
    /// Number of queue slots, a multiple of 64.
    queue_capacity: AtomicU64,
    /// How many of them are taken.
    queues_taken: AtomicU64,
    /// A queue found no place since one was last given up.
    placeless: AtomicBool,
    /// When the server started; statistics count from here.
    pub started_at: AtomicI64,
    /// Whether the launcher's last attempt to start a worker failed for want of a worker slot.
    pub lacks_worker_slot: AtomicU8,
    /// Roles, databases or privileges have changed: what could not be started may start now.
    pub access_changed: AtomicBool,
    /// The flight recorder of the last life has been read.
    pub recorder_read: AtomicBool,
    /// Executors that have left and verdicts on them so far, and how many of those have been seen closed:
    /// while they differ, the recorder is asked before what was claimed is run.
    pub endings: AtomicU64,
    pub closed_endings: AtomicU64,
    /// One more than the executor slot that runs a job alone, or wants to; 0: nobody.
    pub quarantine: AtomicU64,
    pub executors: Executors,
    pub databases: [DatabaseSlot; MAX_DATABASES],
    pub cancels: Cancels,
    pub watches: [WatchSlot; MAX_WATCHES],
    log_shares: [LogShare; MAX_SHARES],
    pub listened: Listened,
    /// Transactions prepared since the server started.
    prepared_so_far: AtomicU64,
    /// The number of this life of the server, and how many sessions of it were entered so far (sessions.rs).
    life: AtomicU64,
    sessions_so_far: AtomicU64,
    /// For the relays that run.
    pub rings: [Ring; RINGS],
}

static SEGMENT: Segment = Segment {
    name: c"pushy",
    size: segment_size,
    init: init_segment,
    close: close_segment,
};

fn capacity() -> usize {
    (settings::max_queues() as usize).next_multiple_of(64)
}

fn segment_size() -> usize {
    size_of::<Shared>().next_multiple_of(64)
        + capacity() / 64 * size_of::<AtomicU64>()
        + capacity() * (size_of::<QueueSlot>() + size_of::<Statistics>())
        + (prepared::cells(transaction::most_prepared()) * size_of::<prepared::PreparedCell>())
            .next_multiple_of(64)
        + (sessions::cells() * size_of::<sessions::SessionCell>()).next_multiple_of(64)
        + untold::cells(transaction::most_prepared()) * size_of::<untold::UntoldCell>()
        + 64
}

fn init_segment(base: *mut u8) {
    let shared = crate::pg::shared_cast::fixed::<Shared>(base);
    shared
        .queue_capacity
        .store(capacity() as u64, Ordering::Relaxed);
    shared
        .started_at
        .store(crate::pg::clock::now().0, Ordering::Relaxed);
    for database in &shared.databases {
        database.init();
    }
    shared.init_sessions();
    counters_file::read(shared);
}

fn close_segment(base: *mut u8) {
    counters_file::write(crate::pg::shared_cast::fixed::<Shared>(base));
}

/// Asks for the memory; while preloading only.
pub fn request() {
    shmem::request(&SEGMENT);
}

/// The shared state; None when the library was not preloaded.
pub fn get() -> Option<&'static Shared> {
    shmem::base().map(crate::pg::shared_cast::fixed::<Shared>)
}

/// The shared state, in processes that exist only with the preload.
pub fn expect() -> &'static Shared {
    get().expect("pushy is preloaded")
}

impl Shared {
    /// Queue slots that are free.
    pub fn queues_free(&self) -> u64 {
        let taken = self.queues_taken.load(Ordering::SeqCst);
        (self.capacity() as u64).saturating_sub(taken)
    }

    fn capacity(&self) -> usize {
        self.queue_capacity.load(Ordering::Relaxed) as usize
    }

    /// A bit per queue slot: it may have ready jobs.
    pub fn ready_bits(&self) -> &[AtomicU64] {
        crate::pg::shared_cast::tail(self, 0, self.capacity() / 64)
    }

    pub fn queues(&self) -> &[QueueSlot] {
        crate::pg::shared_cast::tail(self, self.bits_size(), self.capacity())
    }

    /// The statistics of the queue in a slot.
    pub fn statistics_of(&self, index: usize) -> &Statistics {
        let before = self.bits_size() + self.capacity() * size_of::<QueueSlot>();
        let all: &[Statistics] = crate::pg::shared_cast::tail(self, before, self.capacity());
        &all[index]
    }

    /// Places for prepared transactions.
    fn prepared(&self) -> &[prepared::PreparedCell] {
        let each = size_of::<QueueSlot>() + size_of::<Statistics>();
        let before = self.bits_size() + self.capacity() * each;
        let cells = prepared::cells(transaction::most_prepared());
        crate::pg::shared_cast::tail(self, before, cells)
    }

    fn before_sessions(&self) -> usize {
        let each = size_of::<QueueSlot>() + size_of::<Statistics>();
        let prepared =
            prepared::cells(transaction::most_prepared()) * size_of::<prepared::PreparedCell>();
        self.bits_size() + self.capacity() * each + prepared.next_multiple_of(64)
    }

    /// The number of the session of each process; 0: it has none.
    fn sessions(&self) -> &[sessions::SessionCell] {
        crate::pg::shared_cast::tail(self, self.before_sessions(), sessions::cells())
    }

    /// Places for prepared transactions of whose end no statement tells.
    fn untold(&self) -> &[untold::UntoldCell] {
        let sessions =
            (sessions::cells() * size_of::<sessions::SessionCell>()).next_multiple_of(64);
        let cells = untold::cells(transaction::most_prepared());
        crate::pg::shared_cast::tail(self, self.before_sessions() + sessions, cells)
    }

    fn bits_size(&self) -> usize {
        (self.capacity() / 64 * size_of::<AtomicU64>()).next_multiple_of(64)
    }

    /// Makes the launcher look for work that no executor serves.
    pub fn call_launcher(&self) {
        self.demand.fetch_add(1, Ordering::SeqCst);
        self.launcher.wake();
    }
}
