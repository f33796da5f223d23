//! What the current transaction will tell the other processes when it ends, kept per savepoint.
//!
//! Collected by ordinary code, which may allocate; told by the callbacks, which only flip atomics, set
//! latches and send signals.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use super::cancels::Promise;
use super::database::{Presence, NEVER};
use super::executor::Asked;
use super::queue_slot::{QueueFacts, QueueKey, Tally, NOTHING, PRIORITIES};
use super::Shared;
use crate::pg::signals;
use crate::pg::transaction::{self, End, Observer, SavepointEnd};

/// Positions of one queue that become ready, or free, when the transaction ends.
#[derive(Clone, Copy)]
struct Announcement {
    index: usize,
    key: QueueKey,
    level: i32,
    why: Why,
    low: [u64; PRIORITIES],
    jobs: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// Rows made ready: told at commit.
    Ready,
    /// Rows locked: told at commit and at abort, the lock being gone either way.
    Locked,
    /// A watermark taken by a claim: told at abort only, with the locks of the batch gone.
    Claimed,
}

#[derive(Clone, Copy)]
enum Change {
    /// New with this transaction: its slot goes with it when it is rolled back.
    Created(QueueFacts),
    Defined(QueueFacts),
    Dropped(QueueKey),
    /// Privileges only: caches must be read again.
    Privileges,
}

struct Pending {
    announcements: Vec<Announcement>,
    /// (level, job) to be cancelled where it runs.
    cancels: Vec<(i32, Promise)>,
    /// (level, slot) of queues whose jobs this transaction has ended.
    ended: Vec<(i32, usize, Tally)>,
    changes: Vec<(i32, Change)>,
    presence: Option<(i32, Presence)>,
    due: i64,
    sweep: bool,
    rotated: bool,
    access: bool,
    /// Events were written to the log.
    logged: bool,
    /// Permits of queues held until the end (queue_run).
    permits: Vec<(usize, QueueKey)>,
    /// Databases kept empty of workers until the end.
    quiesced: Vec<u32>,
    /// Databases to forget at commit.
    dropped_database: Option<u32>,
}

thread_local! {
    static PENDING: RefCell<Pending> = const {
        RefCell::new(Pending {
            announcements: Vec::new(),
            cancels: Vec::new(),
            ended: Vec::new(),
            changes: Vec::new(),
            presence: None,
            due: NEVER,
            sweep: false,
            rotated: false,
            access: false,
            logged: false,
            permits: Vec::new(),
            quiesced: Vec::new(),
            dropped_database: None,
        })
    };
}

fn with<T>(work: impl FnOnce(&mut Pending) -> T) -> T {
    PENDING.with_borrow_mut(work)
}

static OBSERVER: Observer = Observer {
    before: None,
    at_end,
    at_savepoint_end,
};

/// Watches transactions end: once, at load.
pub fn init() {
    transaction::observe(&OBSERVER);
}

fn add(index: usize, key: QueueKey, priority: usize, position: u64, why: Why, jobs: u64) {
    let level = transaction::nest_level();
    with(|pending| {
        let known = pending.announcements.iter_mut().rev().find(|known| {
            known.index == index && known.key == key && known.level == level && known.why == why
        });
        if let Some(known) = known {
            known.low[priority] = known.low[priority].min(position);
            known.jobs += jobs;
        } else {
            let mut low = [NOTHING; PRIORITIES];
            low[priority] = position;
            pending.announcements.push(Announcement {
                index,
                key,
                level,
                why,
                low,
                jobs,
            });
        }
    });
}

/// A row becomes ready at commit. `new_jobs` counts in the queue's statistics.
pub fn ready(index: usize, key: QueueKey, priority: usize, position: i64, new_jobs: u64) {
    add(index, key, priority, position as u64, Why::Ready, new_jobs);
}

/// Jobs are added that are not due yet: they count in the queue's statistics, and nothing is ready.
pub fn for_later(index: usize, key: QueueKey, new_jobs: u64) {
    add(index, key, 0, NOTHING, Why::Ready, new_jobs);
}

/// A ready row is locked until this transaction ends, and may be free after it.
pub fn locked(index: usize, key: QueueKey, priority: usize, position: i64) {
    add(index, key, priority, position as u64, Why::Locked, 0);
}

/// The watermark of a priority was taken; unless this transaction commits, it is put back.
pub fn claimed(index: usize, key: QueueKey, priority: usize, from: u64) {
    add(index, key, priority, from, Why::Claimed, 0);
}

/// Something is due at `time` (µs) once this transaction has committed.
pub fn due(time: i64) {
    with(|pending| pending.due = pending.due.min(time));
}

/// The job is to be cancelled by the executor that holds it, at commit; false when too many cancels are
/// promised at a time.
pub fn cancel(job: i64) -> bool {
    let Some(shared) = super::get() else {
        return true;
    };
    let place = shared.cancels.keep();
    if let Some(place) = place {
        let level = transaction::nest_level();
        with(|pending| pending.cancels.push((level, Promise { job, place })));
    }
    place.is_some()
}

/// Attempts of jobs of the queue in this slot were ended by this transaction, not by an executor.
pub fn ended(index: usize, tally: Tally) {
    let level = transaction::nest_level();
    with(|pending| {
        let known = pending
            .ended
            .iter_mut()
            .find(|known| known.0 == level && known.1 == index);
        match known {
            Some(known) => known.2.add(&tally),
            None => pending.ended.push((level, index, tally)),
        }
    });
}

/// A queue is new with this transaction, its slot made already and not runnable before the commit.
pub fn created(facts: QueueFacts) {
    change(Change::Created(facts));
}

/// A queue's definition changes at commit.
pub fn defined(facts: QueueFacts) {
    change(Change::Defined(facts));
}

pub fn dropped(key: QueueKey) {
    change(Change::Dropped(key));
}

pub fn privileges_changed() {
    change(Change::Privileges);
}

fn change(change: Change) {
    let level = transaction::nest_level();
    with(|pending| pending.changes.push((level, change)));
}

/// Whether this transaction has changed definitions or privileges: caches do not serve it then.
pub fn has_changes() -> bool {
    PENDING.with_borrow(|pending| !pending.changes.is_empty() || pending.presence.is_some())
}

/// The extension appears in, or disappears from, this database at commit.
pub fn presence(presence: Presence) {
    let level = transaction::nest_level();
    with(|pending| pending.presence = Some((level, presence)));
}

/// The scheduler looks for rows nobody announced, at commit.
pub fn sweep() {
    with(|pending| pending.sweep = true);
}

/// Which table takes which rows changes at commit: who has it cached reads it again.
pub fn rotated() {
    with(|pending| pending.rotated = true);
}

/// The launcher tries again at once what it could not start, at commit.
pub fn access_changed() {
    with(|pending| pending.access = true);
}

/// The relay looks into the log, at commit.
pub fn logged() {
    with(|pending| pending.logged = true);
}

/// The permit of the queue in this slot goes back when the transaction ends.
pub fn holds_permit(index: usize, key: QueueKey) {
    with(|pending| pending.permits.push((index, key)));
}

/// Whether this transaction holds a permit of the queue in this slot.
pub fn has_permit(index: usize, key: QueueKey) -> bool {
    PENDING.with_borrow(|pending| pending.permits.contains(&(index, key)))
}

/// Workers may enter this database again when the transaction ends.
pub fn quiesced(database: u32) {
    with(|pending| pending.quiesced.push(database));
}

pub fn drops_database(database: u32) {
    with(|pending| pending.dropped_database = Some(database));
}

fn at_savepoint_end(end: SavepointEnd, level: i32) {
    PENDING.with(|cell| {
        let Ok(mut pending) = cell.try_borrow_mut() else {
            return;
        };
        let pending = &mut *pending;
        match end {
            SavepointEnd::Release => pending.raise_level(level),
            SavepointEnd::Rollback => pending.forget_level(level),
        }
    });
}

fn at_end(end: End) {
    PENDING.with(|cell| {
        let Ok(mut pending) = cell.try_borrow_mut() else {
            return;
        };
        if let Some(shared) = super::get() {
            if end == End::Commit {
                pending.tell_commit(shared);
            } else if end == End::Abort {
                tell_locked(shared, &pending.announcements);
                free_created(shared, &pending.changes, 0);
            }
            if end != End::Commit {
                free_cancels(shared, &pending.cancels, 0);
            }
            pending.tell_end(shared, end);
        }
        pending.clear();
    });
}

/// Makes the scheduler look for jobs of queues that are gone.
fn ask_for_orphans(shared: &Shared, database: u32) {
    if let Some(slot) = shared.find_database(database) {
        slot.orphans_requested.store(true, Ordering::SeqCst);
        shared.announce_due(slot, 0);
    }
}

fn tell(shared: &Shared, known: &Announcement) {
    for (priority, position) in known.low.iter().enumerate() {
        if *position != NOTHING {
            shared.announce(known.index, known.key, priority, *position);
        }
    }
    shared.wake_for(known.index);
}

fn tell_locked(shared: &Shared, announcements: &[Announcement]) {
    for known in announcements {
        if known.why != Why::Ready {
            tell(shared, known);
        }
    }
}

/// Gives up the slots of queues made at `level` or deeper, which nobody else has seen.
fn free_created(shared: &Shared, changes: &[(i32, Change)], level: i32) {
    for (made_at, change) in changes {
        if let Change::Created(facts) = change {
            if *made_at >= level {
                shared.free_queue(facts.key);
            }
        }
    }
}

/// Hands a cancel to the executor that holds the job, or else to the scheduler.
fn tell_cancel(shared: &Shared, database: u32, promise: Promise) {
    let Some(executor) = shared.executor_holding(database, promise.job) else {
        return shared.leave_cancel(promise, database);
    };
    match executor.request_cancel(promise) {
        // Its batch is over: finished with it, most likely; else it must not run again.
        Asked::InVain => return shared.leave_cancel(promise, database),
        Asked::Before => shared.cancels.free(promise.place),
        Asked::Now => {}
    }
    if executor.job.load(Ordering::SeqCst) == promise.job {
        signals::cancel(executor.pid.load(Ordering::SeqCst));
    }
}

/// Cancels promised at `level` or deeper are not to be.
fn free_cancels(shared: &Shared, cancels: &[(i32, Promise)], level: i32) {
    for (_, promise) in cancels.iter().filter(|cancel| cancel.0 >= level) {
        shared.cancels.free(promise.place);
    }
}

impl Pending {
    fn raise_level(&mut self, level: i32) {
        let mut at = 0;
        while at < self.announcements.len() {
            let known = self.announcements[at];
            if known.level < level {
                at += 1;
                continue;
            }
            let parent = self.announcements.iter().position(|other| {
                other.level == level - 1
                    && other.index == known.index
                    && other.key == known.key
                    && other.why == known.why
            });
            if let Some(parent) = parent {
                let parent = &mut self.announcements[parent];
                for (low, other) in parent.low.iter_mut().zip(known.low) {
                    *low = (*low).min(other);
                }
                parent.jobs += known.jobs;
                self.announcements.swap_remove(at);
            } else {
                self.announcements[at].level = level - 1;
                at += 1;
            }
        }
        for cancel in &mut self.cancels {
            cancel.0 = cancel.0.min(level - 1);
        }
        for ended in &mut self.ended {
            ended.0 = ended.0.min(level - 1);
        }
        for change in &mut self.changes {
            change.0 = change.0.min(level - 1);
        }
        if let Some(presence) = &mut self.presence {
            presence.0 = presence.0.min(level - 1);
        }
    }

    fn forget_level(&mut self, level: i32) {
        if let Some(shared) = super::get() {
            free_created(shared, &self.changes, level);
            free_cancels(shared, &self.cancels, level);
            for known in &self.announcements {
                if known.level >= level && known.why != Why::Ready {
                    tell(shared, known);
                }
            }
        }
        self.announcements.retain(|known| known.level < level);
        self.cancels.retain(|cancel| cancel.0 < level);
        self.ended.retain(|ended| ended.0 < level);
        self.changes.retain(|change| change.0 < level);
        if self.presence.is_some_and(|presence| presence.0 >= level) {
            self.presence = None;
        }
    }

    fn tell_commit(&self, shared: &Shared) {
        let database = crate::pg::database::current();
        // Before anybody is woken: whoever wakes must find its cache invalid.
        if !self.changes.is_empty() || self.presence.is_some() {
            if let Some(slot) = shared.find_database(database) {
                slot.definitions.fetch_add(1, Ordering::SeqCst);
                slot.left_out.store(false, Ordering::SeqCst);
            }
        }
        if self.rotated || self.presence.is_some() {
            if let Some(slot) = shared.find_database(database) {
                slot.rotations.fetch_add(1, Ordering::SeqCst);
            }
        }
        for (_, change) in &self.changes {
            match change {
                Change::Created(facts) | Change::Defined(facts) => {
                    if let Some(index) = shared.find_queue(facts.key) {
                        shared.queues()[index].apply(facts);
                        shared.set_ready(index);
                        shared.wake_for(index);
                    }
                }
                Change::Dropped(key) => {
                    shared.free_queue(*key);
                    ask_for_orphans(shared, database);
                }
                Change::Privileges => {}
            }
        }
        if let Some((_, presence)) = self.presence {
            if presence == Presence::Absent {
                shared.free_queues_of(database);
                shared.cancels.forget(database);
                shared.free_watches_of(database);
            }
            if let Some(slot) = shared.find_database(database) {
                if presence == Presence::Present && slot.presence() == Presence::Unknown {
                    // Nobody has looked yet what is due here: the server has just started.
                    slot.announce_due(0);
                }
                slot.set_presence(presence);
                slot.log.forget_part();
                slot.failures.store(0, Ordering::SeqCst);
                slot.retry_at.store(0, Ordering::SeqCst);
            }
            shared.call_launcher();
        }
        if !self.announcements.is_empty() || self.logged {
            if let Some(slot) = shared.find_database(database) {
                slot.witness();
            }
        }
        for known in &self.announcements {
            if known.why == Why::Claimed {
                continue;
            }
            let slot = &shared.queues()[known.index];
            if !slot.is(known.key) {
                // The queue was dropped after this transaction had looked it up.
                ask_for_orphans(shared, database);
                continue;
            }
            let enqueued = &slot.statistics.enqueued;
            enqueued.fetch_add(known.jobs, Ordering::Relaxed);
            tell(shared, known);
        }
        if self.due != NEVER {
            if let Some(slot) = shared.find_database(database) {
                shared.announce_due(slot, self.due);
            }
        }
        if self.sweep {
            if let Some(slot) = shared.find_database(database) {
                slot.sweep_requested.store(true, Ordering::SeqCst);
                shared.call_launcher();
            }
        }
        if self.logged {
            if let Some(slot) = shared.find_database(database) {
                shared.announce_logged(slot);
            }
        }
        if self.access {
            shared.access_changed.store(true, Ordering::SeqCst);
            shared.call_launcher();
        }
        for (_, promise) in &self.cancels {
            tell_cancel(shared, database, *promise);
        }
        for (_, index, tally) in &self.ended {
            let slot = &shared.queues()[*index];
            slot.statistics.count(tally);
            if tally.finished() > 0 {
                slot.finished.broadcast();
                slot.tell_drain();
            }
        }
        if let Some(dropped) = self.dropped_database {
            shared.free_database(dropped);
        }
    }

    /// What is given back however the transaction ended.
    fn tell_end(&self, shared: &Shared, end: End) {
        for (index, key) in &self.permits {
            shared.queues()[*index].return_permit(*key);
            shared.set_ready(*index);
            shared.wake_for(*index);
        }
        if end == End::Prepare {
            return;
        }
        for oid in &self.quiesced {
            if let Some(slot) = shared.find_database(*oid) {
                slot.quiesced.fetch_sub(1, Ordering::SeqCst);
                for (index, queue) in shared.queues().iter().enumerate() {
                    if queue.key().is_some_and(|key| key.database == *oid) {
                        shared.set_ready(index);
                    }
                }
            }
            shared.call_launcher();
        }
    }

    fn clear(&mut self) {
        self.announcements.clear();
        self.cancels.clear();
        self.ended.clear();
        self.changes.clear();
        self.presence = None;
        self.due = NEVER;
        self.sweep = false;
        self.rotated = false;
        self.access = false;
        self.logged = false;
        self.permits.clear();
        self.quiesced.clear();
        self.dropped_database = None;
    }
}
