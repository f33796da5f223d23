//! The kinds of workers of which a database has one at most: what they are called, when one is wanted, how it is asked to
//! leave, and how `pushy.workers` shows it. A new kind is one entry more.

use std::sync::atomic::Ordering;

use crate::pg::clock;
use crate::pg::signals;
use crate::pg::value::Timestamp;
use crate::pg::worker::WorkerProcess;
use crate::shared::database::{DatabaseSlot, Presence, GATEWAY, NEVER, RELAY, SCHEDULER, WORKERS};
use crate::shared::database_worker::DatabaseWorker;
use crate::worker::launcher::Launcher;
use crate::worker::scheduler;

/// In src/relay/worker.rs, which the server finds by its name.
const RELAY_PROCESS: WorkerProcess = WorkerProcess {
    name: "pushy relay",
    entry: "pushy_relay_main",
};

/// In src/gateway_worker/mod.rs, in the same way.
const GATEWAY_PROCESS: WorkerProcess = WorkerProcess {
    name: "pushy gateway",
    entry: "pushy_gateway_main",
};

pub struct DatabaseKind {
    /// As `pushy.workers` has it.
    pub name: &'static str,
    /// Its process.
    pub(super) process: &'static WorkerProcess,
    /// Its place among the workers of a database in shared memory.
    cell: usize,
    /// From when on (µs) one is wanted in a database that has none, 0 for now; NEVER where none is, or may not come.
    pub(super) wanted: fn(&mut Launcher, &DatabaseSlot, i64) -> i64,
    /// One is started: takes what it was wanted for.
    pub(super) takes: fn(&mut Launcher, &DatabaseSlot, i64) -> i64,
    /// There was no place for its process: puts back what `takes` has answered.
    pub(super) puts_back: fn(&mut Launcher, &DatabaseSlot, i64),
    /// Two hundred databases at the start of the server must not take all of its slots for workers.
    pub(super) one_after_another: bool,
    /// Asks it to leave, for good or to come back.
    ask_to_leave: fn(&DatabaseWorker),
    /// Whether it is at work just now, which `pushy.workers` shows as busy or idle.
    is_busy: fn(&DatabaseSlot) -> bool,
    /// `pushy.workers` shows since when it is there.
    shows_since: bool,
}

pub static KINDS: [DatabaseKind; 3] = [
    DatabaseKind {
        name: "scheduler",
        process: &scheduler::PROCESS,
        cell: SCHEDULER,
        wanted: Launcher::scheduler_wanted,
        takes: Launcher::take_inspection,
        puts_back: |launching, database_slot, _| launching.forget_inspection(database_slot),
        one_after_another: true,
        ask_to_leave: terminate,
        is_busy: |database_slot| !database_slot.scheduler().rests(),
        // It comes and goes all the time.
        shows_since: false,
    },
    DatabaseKind {
        name: "relay",
        process: &RELAY_PROCESS,
        cell: RELAY,
        wanted: |_, database_slot, _| relay_wanted(database_slot),
        takes: |_, database_slot, _| database_slot.log.relay_due.swap(NEVER, Ordering::SeqCst),
        puts_back: |_, database_slot, due| database_slot.log.relay_due.store(due, Ordering::SeqCst),
        one_after_another: false,
        ask_to_leave: terminate,
        is_busy: |database_slot| database_slot.log.relay_busy.load(Ordering::SeqCst),
        shows_since: true,
    },
    DatabaseKind {
        name: "gateway",
        process: &GATEWAY_PROCESS,
        cell: GATEWAY,
        wanted: |_, database_slot, _| gateway_wanted(database_slot),
        takes: |_, _, _| 0,
        puts_back: |_, _, _| {},
        one_after_another: false,
        ask_to_leave: terminate,
        is_busy: |database_slot| !database_slot.gateway().rests(),
        shows_since: true,
    },
];

/// Each kind has a cell of its own.
const _: () = {
    let mut at = 0;
    // Bounded: by the kinds, when it is compiled.
    while at < KINDS.len() {
        assert!(KINDS[at].cell == at && at < WORKERS);
        at += 1;
    }
};

fn terminate(worker: &DatabaseWorker) {
    signals::terminate(worker.pid());
}

impl DatabaseKind {
    pub fn of<'a>(&self, database_slot: &'a DatabaseSlot) -> &'a DatabaseWorker {
        &database_slot.workers[self.cell]
    }

    /// What it does, and since when it is there, as `pushy.workers` shows it.
    pub fn shown(&self, database_slot: &DatabaseSlot) -> (&'static str, Option<Timestamp>) {
        let is_busy = (self.is_busy)(database_slot);
        let since = || Timestamp(self.of(database_slot).since());
        (
            if is_busy { "busy" } else { "idle" },
            self.shows_since.then(since),
        )
    }

    pub fn ask_to_leave(&self, database_slot: &DatabaseSlot) {
        (self.ask_to_leave)(self.of(database_slot));
    }

    /// When those of this kind that are on their way were started.
    pub(super) fn coming<'a>(
        &'a self,
        places: &'a [DatabaseSlot],
    ) -> impl Iterator<Item = i64> + 'a {
        let taken = places
            .iter()
            .filter(|database_slot| database_slot.oid() != 0);
        taken.filter_map(|database_slot| self.of(database_slot).coming_since())
    }
}

/// The relay comes where something was logged, or the log has aged.
fn relay_wanted(database_slot: &DatabaseSlot) -> i64 {
    if database_slot.presence() != Presence::Present {
        NEVER
    } else if database_slot.log.is_dirty() || database_slot.log.tells_queues.load(Ordering::SeqCst)
    {
        0
    } else {
        database_slot.log.relay_due.load(Ordering::SeqCst)
    }
}

/// The gateway is there where the database's settings say that it listens.
fn gateway_wanted(database_slot: &DatabaseSlot) -> i64 {
    let is_wanted = database_slot.presence() == Presence::Present
        && database_slot.gateway_settings.load(Ordering::SeqCst) != 0;
    if is_wanted {
        0
    } else {
        NEVER
    }
}

/// A scheduler is started so long before something is due: it takes some milliseconds to come up.
const LEAD_US: i64 = 200_000;
/// So long after its start the server is left to those who connect again.
pub(super) const FIRST_INSPECTION_US: i64 = 100_000;
/// A look that takes longer, for somebody holds a lock, does not keep others from beginning.
const MOST_INSPECTION_US: i64 = 1_000_000;
/// The longest rest after a look.
const MOST_REST_US: i64 = 50_000;
/// The longest wait for an executor that is on its way.
const MOST_WAIT_US: i64 = 100_000;

/// The scheduler comes where something is due.
impl Launcher {
    fn scheduler_wanted(&mut self, database_slot: &DatabaseSlot, now: i64) -> i64 {
        if database_slot.presence() == Presence::Absent {
            // Another CREATE EXTENSION would begin to count its jobs anew.
            self.recorder.forget_database(database_slot.oid());
            return NEVER;
        }
        if database_slot.presence() == Presence::Incompatible {
            return NEVER;
        }
        let due = self.scheduler_due(database_slot);
        if self.is_inspection(database_slot) {
            due.max(self.next_inspection(now))
        } else {
            due
        }
    }

    fn take_inspection(&mut self, database_slot: &DatabaseSlot, now: i64) -> i64 {
        if self.is_inspection(database_slot) {
            self.inspected = Some((database_slot.oid(), now));
        }
        0
    }

    fn forget_inspection(&mut self, database_slot: &DatabaseSlot) {
        self.inspected = self
            .inspected
            .filter(|(oid, _)| *oid != database_slot.oid());
    }

    /// When the next look into a database that nobody has asked for may begin. Each takes some 10 ms of a core, and
    /// at a start of the server those who connect again want the cores too: one at a time, as long a rest after
    /// each as it took, and none while an executor is on its way to a job.
    fn next_inspection(&mut self, now: i64) -> i64 {
        if let Some((oid, began)) = self.inspected {
            let database_slot = self.shared.find_database(oid);
            let is_over = database_slot.is_none_or(|database_slot| {
                database_slot.is_inspected.load(Ordering::SeqCst)
                    || database_slot.scheduler().is_absent()
            });
            if !is_over && now < began + MOST_INSPECTION_US {
                return began + MOST_INSPECTION_US;
            }
            self.inspected = None;
            self.inspect_after = now + (now - began).min(MOST_REST_US);
        }
        let executors = self.shared.executors.iter();
        let coming = executors.filter(|executor| executor.state().is_coming());
        // Each wakes the launcher when it has come up.
        let given_up_at =
            coming.map(|executor| executor.started_at.load(Ordering::SeqCst) + MOST_WAIT_US);
        given_up_at.fold(self.inspect_after, i64::max)
    }

    /// Whether the scheduler would be started for nothing but to see what is there. Somebody may have enqueued
    /// already: that job waits for an executor, not for the scheduler.
    fn is_inspection(&self, database_slot: &DatabaseSlot) -> bool {
        !database_slot.is_inspected.load(Ordering::SeqCst) && !self.is_asked_for(database_slot)
    }

    /// When the scheduler of a database is wanted, 0 for now.
    fn scheduler_due(&self, database_slot: &DatabaseSlot) -> i64 {
        if database_slot.presence() == Presence::Unknown || self.is_asked_for(database_slot) {
            return 0;
        }
        let due = database_slot.due.load(Ordering::SeqCst);
        let due = if due == NEVER {
            NEVER
        } else {
            due.saturating_sub(LEAD_US)
        };
        if database_slot.sweep_requested.load(Ordering::SeqCst) {
            let rests_until = database_slot.asked_sweeps_rest_until.load(Ordering::SeqCst);
            return due.min(rests_until);
        }
        due
    }

    fn is_asked_for(&self, database_slot: &DatabaseSlot) -> bool {
        database_slot.sweep_requested.load(Ordering::SeqCst)
            && database_slot.asked_sweeps_rest_until.load(Ordering::SeqCst) <= clock::now().0
            || database_slot.orphans_requested.load(Ordering::SeqCst)
                && database_slot.orphans_rest_until.load(Ordering::SeqCst) <= clock::now().0
            || database_slot.settings_unread.load(Ordering::SeqCst)
            || self.recorder.has_verdicts(database_slot.oid())
    }
}
