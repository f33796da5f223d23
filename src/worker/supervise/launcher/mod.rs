//! The launcher: one for the cluster, without a database. Starts a scheduler where one is due and
//! executors where there is work, within pushy.max_executors, and gives each pair its turn.

mod capacity;
mod database_workers;
mod databases;
mod executors;
pub mod kinds;
mod start_failures;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushy_core::capacity::{ExecutorKey, Hangs, SLICE_US, START_US};
use pushy_core::slots::{Class, Turn};

use self::kinds::KINDS;
use crate::pg::worker::{self, Handle, WorkerProcess};
use crate::pg::{clock, guc, latch, shmem, signals};
use crate::shared::database::NEVER;
use crate::shared::{self, Shared};
use crate::worker::recorder::{self, Recorder};
use crate::{settings, worker_entry};

const PROCESS: WorkerProcess = WorkerProcess {
    name: "pushy launcher",
    entry: "pushy_launcher_main",
};

/// The longest sleep, after which it looks whether the sweep is due.
const SWEEP_US: i64 = 60_000_000;
/// A clock that is set back by less holds nobody up.
const SET_BACK_US: i64 = 1_000_000;
/// A process that has not entered itself so long (µs) after its start, and that a launcher before this one has started, is
/// not coming. One that comes all the same finds that it is not meant, and leaves.
const LOST_US: i64 = SWEEP_US;
/// A start that takes longer (µs), for somebody holds the database (one who copies it, say), does not keep others from theirs.
const MOST_START_US: i64 = 1_000_000;

pub fn register() {
    worker::register_static(&PROCESS, "pushy launcher", Duration::from_secs(1));
}

worker_entry!(pushy_launcher_main, launcher);

fn launcher(_arg: usize) {
    if worker::is_binary_upgrade() {
        return;
    }
    let shared = shared::expect();
    shared.launcher.enter();
    shmem::at_exit(|| {
        if let Some(shared) = shared::get() {
            shared.launcher.leave();
        }
    });
    signals::init_worker();
    worker::connect_shared();
    let recorder = recorder::await_one();
    if !shared.recorder_read.swap(true, Ordering::SeqCst) {
        recorder.find_verdicts_of_last_life();
    }
    Launcher {
        shared,
        recorder,
        names: HashMap::new(),
        executors: HashMap::new(),
        workers: HashMap::new(),
        inspected: None,
        inspect_after: clock::now().0 + kinds::FIRST_INSPECTION_US,
        start_failures: HashMap::new(),
        said_waiting: HashMap::new(),
        hangs: Hangs::default(),
        last_xid: 0,
        swept_at: clock::now().0,
        clocks: (clock::now().0, Instant::now()),
        last_started: HashMap::new(),
        next_held: NEVER,
        lacks_worker_slot_since: None,
        turn: Turn::default(),
        found_no_slot: false,
        has_started: false,
    }
    .live();
}

/// Failures to start executors of a pair.
#[derive(Default)]
struct StartFailures {
    failures: u32,
    retry_at: i64,
}

pub struct Launcher {
    shared: &'static Shared,
    recorder: &'static Recorder,
    /// Databases in which jobs may run, by OID.
    names: HashMap<u32, String>,
    /// Executors we have started, by slot.
    executors: HashMap<usize, (Handle, ExecutorKey)>,
    /// By the name of their kind and by database.
    workers: HashMap<(&'static str, u32), Handle>,
    /// The database whose scheduler has been started to see what is there, and when.
    inspected: Option<(u32, i64)>,
    /// No inspection of a database begins before this time (µs).
    inspect_after: i64,
    start_failures: HashMap<ExecutorKey, StartFailures>,
    /// Why jobs of a pair wait, as the log has it; until nothing is in the way of its executors.
    said_waiting: HashMap<ExecutorKey, String>,
    hangs: Hangs,
    last_xid: u64,
    swept_at: i64,
    /// What clock and stopwatch said the last time.
    clocks: (i64, Instant),
    /// When an executor of a pair was last started: the pair that has waited longest is next.
    last_started: HashMap<ExecutorKey, i64>,
    /// When the first of the queues that were passed over after a failure may be tried again.
    next_held: i64,
    lacks_worker_slot_since: Option<i64>,
    /// Who lacks a worker slot of the server's, and whose turn the next one is.
    turn: Turn,
    /// No slot was free in this round.
    found_no_slot: bool,
    /// One was, since everybody last had one.
    has_started: bool,
}

impl Launcher {
    fn live(mut self) {
        self.refresh_databases();
        loop {
            if guc::reload_if_asked() {
                self.refresh_databases();
            }
            self.follow_clock();
            if self.shared.access_changed.swap(false, Ordering::SeqCst) {
                self.have_settings_read();
                self.retry_now();
            }
            let mut next = clock::now().0 + SWEEP_US;
            next = next.min(self.reap_executors());
            next = next.min(self.reap_database_workers());
            next = next.min(self.shared.announce_untold(clock::now().0));
            // Before the ready bits are read: a process that finds `closed` does not call the launcher, but has set its
            // bit.
            let enabled = settings::enabled();
            self.shared.set_enabled(enabled);
            if enabled {
                self.sweep_if_due();
                next = next.min(self.start_all());
            }
            worker::show_activity(None);
            let left = next.saturating_sub(clock::now().0).clamp(1000, SWEEP_US);
            latch::wait(Some(Duration::from_micros(left as u64)));
        }
    }

    /// Starts what is wanted; answers when to look again. Executors first, because jobs wait for them, and by turns with
    /// schedulers and relays while these lack a slot of the server's, because executors of queues that are never empty, and
    /// relays of many databases, would take each that is left.
    fn start_all(&mut self) -> i64 {
        self.found_no_slot = false;
        let mut next = if self.turn.first() == Class::OfDatabases {
            let next = self.start_database_workers();
            next.min(self.start_executors())
        } else {
            let next = self.start_executors();
            next.min(self.start_database_workers())
        };
        if self.turn.ends() {
            next = clock::now().0;
        }
        if !self.found_no_slot && !self.turn.anybody_lacks() && self.has_started {
            self.has_started = false;
            self.nobody_lacks_a_slot();
        }
        next
    }

    /// What waits for a time that has gone far away, because the clock was set back, waits no longer.
    fn follow_clock(&mut self) {
        let now = clock::now().0;
        let (clock, stopwatch) = self.clocks;
        self.clocks = (now, Instant::now());
        let expected = clock.saturating_add(stopwatch.elapsed().as_micros() as i64);
        if expected - now < SET_BACK_US {
            return;
        }
        self.shared.set_back(now);
        self.hangs.set_back(now);
        self.swept_at = self.swept_at.min(now);
        self.lacks_worker_slot_since = self.lacks_worker_slot_since.map(|since| since.min(now));
        self.inspected = None;
        self.inspect_after = now;
        for started in self.last_started.values_mut() {
            *started = (*started).min(now);
        }
        self.retry_now();
    }

    /// Where ALTER DATABASE … SET was run, by this transaction or another one.
    fn have_settings_read(&self) {
        for database_slot in &self.shared.databases {
            if database_slot.oid() != 0 && database_slot.settings_doubted.load(Ordering::SeqCst) {
                database_slot.settings_unread.store(true, Ordering::SeqCst);
                database_slot.scheduler().wake();
            }
        }
    }

    /// Tries again at once what failed to start.
    fn retry_now(&mut self) {
        self.refresh_databases();
        for trouble in self.start_failures.values_mut() {
            trouble.retry_at = 0;
        }
        self.hangs.retry_now();
        for database_slot in &self.shared.databases {
            for kind in &KINDS {
                kind.of(database_slot).retry_now();
            }
        }
    }
}

/// When to look again at a start that has not come up.
fn next_check_of_start(since: i64, now: i64) -> i64 {
    (since + START_US + 1).max(now + SLICE_US)
}
