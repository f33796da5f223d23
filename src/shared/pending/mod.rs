//! What the current transaction will announce to the other processes when it ends, kept per savepoint.
//!
//! `collect` and its like are called by ordinary code, which may allocate; `before`, `announce` and `take_back` are for the callbacks at the end.

mod announce;
mod announce_changes;
mod before;
mod collect;
mod collect_changes;
mod collect_leases;
mod prepare;
mod savepoint;
mod take_back;

pub use announce::{ask_for_orphans, interrupt};
pub use collect::{
    access_changed, all_locked, ask_cancel, awaited, count, count_times, drops_database, due,
    for_later, found, has_asked, has_permit, holds_permit, left_marker, left_out, locked,
    locked_waiting, logged, prepares, promises, quiesced, ready, recall_cancel, rotated, sweep,
    take_back, take_left_out, take_unsaid_to_gateways, take_watermarks, take_watermarks_and_own,
    unlogged, unplaced, unsaid, unsaid_to_gateways, waiting_from,
};
pub use collect_changes::{
    created, defined, dropped, has_changes, presence, privileges_changed, subscriptions_changed,
};
pub use collect_leases::{lease_ends, lease_said, leased, leases_ended, leases_of};

use std::cell::RefCell;

use super::cancels::Promise;
use super::database::{Presence, NEVER};
use super::log::Gap;
use super::queue_slot::{QueueFacts, QueueKey, PRIORITIES};
use super::statistics::QueueCounts;
use super::unpublished::Left;
use crate::errors::Result;
use crate::pg::per_process::PerProcess;
use crate::pg::transaction_end::{self, Observer};

/// What the end of a transaction asks of the rooms above: `crate::ABOVE_PENDING` is it.
pub struct Above {
    /// A queue's name, if this session knows it.
    pub queue_name: fn(i32) -> Option<String>,
    /// Carries out a promised cancel in the transaction that is prepared.
    pub cancel_to_prepare: fn(Promise) -> Result<()>,
    /// Publishes what pushy_control has left out of this transaction.
    pub publish_left_out: fn() -> Result<()>,
    /// Leaves the word that notices of this transaction are in no log.
    pub leave_marker: fn() -> Result<()>,
}

/// Positions of one queue that become ready, or free, when the transaction ends.
#[derive(Clone, Copy)]
struct Announcement {
    index: usize,
    key: QueueKey,
    level: i32,
    why: Why,
    low: [u64; PRIORITIES],
    jobs: u64,
    /// The caller was answered job numbers: they commit into their queue, or not at all.
    promised: bool,
    /// `QueueSlot::begin_announcing` has counted this announcement.
    begun: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Rows made ready: announced at commit.
    Ready,
    /// Rows found that may have been announced before: as those, but who was told of them need not be told again.
    Found,
    /// Rows locked: announced at commit and at abort, because the lock is gone either way.
    Locked,
    /// A watermark taken by a claim: announced at abort only, when the locks of the batch are gone.
    Claimed,
}

#[derive(Clone, Copy)]
enum DefinitionChange {
    /// New with this transaction: its slot goes with it when it is rolled back.
    Created(QueueFacts),
    Defined(QueueFacts),
    /// `forced`: with the jobs that are left.
    Dropped {
        key: QueueKey,
        forced: bool,
    },
    /// Privileges only, on this queue or others: caches must be read again.
    Privileges(Option<QueueKey>),
    /// Subscriptions only, which no cache has: who waits for one looks again.
    Subscriptions,
}

/// What this transaction adds to the statistics of a queue.
struct Count {
    level: i32,
    index: usize,
    key: QueueKey,
    tally: QueueCounts,
}

/// Who holds a permit until the transaction ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PermitOf {
    /// It runs jobs itself (queue_run).
    Jobs,
    /// It claims jobs for a worker outside, and is no limit to others.
    Claim,
}

/// Leases of one queue that this transaction adds and ends.
#[derive(Clone, Copy)]
struct LeaseChange {
    level: i32,
    key: QueueKey,
    added: u32,
    ended: u32,
    /// When (µs) it has said of some until when they last; 0: of none. To whom, nobody could tell before COMMIT PREPARED.
    said_at: i64,
    /// The round of the queue's count when the commit began (`LeaseCount`).
    round: Option<u32>,
}

/// How long a job has waited and run that this transaction completes (µs).
struct Times {
    level: i32,
    index: usize,
    key: QueueKey,
    wait: u64,
    run: u64,
}

struct Pending {
    announcements: Vec<Announcement>,
    /// Requests for cancels, each with the nest level at which it was made.
    cancels: Vec<(i32, Promise)>,
    counts: Vec<Count>,
    times: Vec<Times>,
    /// Events that pushy_control leaves out, each kind with the nest level.
    left_out: Vec<(i32, usize, Left)>,
    /// Queues without a place in shared memory that have new jobs, each with the database's counter of definitions before.
    unplaced: Vec<(QueueKey, u64)>,
    changes: Vec<(i32, DefinitionChange)>,
    /// Of the extension here; the last is what stands at the end.
    presence: Vec<(i32, Presence)>,
    due: i64,
    /// The earliest time (µs) for which a job waits that this transaction has written.
    waiting_from: i64,
    /// The earliest time (µs) for which a job waits that this transaction has locked.
    locked_waiting: i64,
    /// The earliest time (µs) at which a lease ends that this transaction has written.
    lease_ends: i64,
    /// What it does to the leases of each queue.
    leases: Vec<LeaseChange>,
    sweep: bool,
    /// It brings something of which nothing else is said here, and which a sweep finds after COMMIT PREPARED.
    unsaid: bool,
    /// It has changed what gateways have been told, when none had come.
    unsaid_to_gateways: bool,
    rotated: bool,
    access: bool,
    /// Events were written to the log.
    logged: bool,
    /// Notices of it are in no log.
    unlogged: bool,
    /// The marker that it has left says so: what was known of the gap then.
    marker: Option<Gap>,
    /// The relay leaves long gaps between ticks, and a LISTENer waits for these events.
    awaited: bool,
    /// Permits of queues held until the end.
    permits: Vec<(usize, QueueKey, PermitOf)>,
    /// The name it is about to be prepared under.
    prepares: Option<Vec<u8>>,
    /// Databases kept empty of workers until the end, each once.
    quiesced: Vec<u32>,
    /// Databases to forget at commit.
    dropped_databases: Vec<u32>,
}

impl Pending {
    fn clear(&mut self) {
        self.announcements.clear();
        self.cancels.clear();
        self.counts.clear();
        self.times.clear();
        self.left_out.clear();
        self.unplaced.clear();
        self.changes.clear();
        self.presence.clear();
        self.due = NEVER;
        self.waiting_from = NEVER;
        self.locked_waiting = NEVER;
        self.lease_ends = NEVER;
        self.leases.clear();
        self.sweep = false;
        self.unsaid = false;
        self.unsaid_to_gateways = false;
        self.rotated = false;
        self.access = false;
        self.logged = false;
        self.unlogged = false;
        self.marker = None;
        self.awaited = false;
        self.permits.clear();
        self.prepares = None;
        self.quiesced.clear();
        self.dropped_databases.clear();
    }
}

static PENDING: PerProcess<RefCell<Pending>> = PerProcess::new(RefCell::new(Pending {
    announcements: Vec::new(),
    cancels: Vec::new(),
    counts: Vec::new(),
    times: Vec::new(),
    left_out: Vec::new(),
    unplaced: Vec::new(),
    changes: Vec::new(),
    presence: Vec::new(),
    due: NEVER,
    waiting_from: NEVER,
    locked_waiting: NEVER,
    lease_ends: NEVER,
    leases: Vec::new(),
    sweep: false,
    unsaid: false,
    unsaid_to_gateways: false,
    rotated: false,
    access: false,
    logged: false,
    unlogged: false,
    marker: None,
    awaited: false,
    permits: Vec::new(),
    prepares: None,
    quiesced: Vec::new(),
    dropped_databases: Vec::new(),
}));

fn with<T>(work: impl FnOnce(&mut Pending) -> T) -> T {
    transaction_end::expect();
    PENDING.with_borrow_mut(work)
}

static OBSERVER: Observer = Observer {
    before: Some(before::before),
    at_end: announce::at_end,
    at_savepoint_end: savepoint::at_savepoint_end,
};

/// Watches transactions end: once, at load.
pub fn init() {
    transaction_end::observe(&OBSERVER);
}
