//! Capacity for workers: who gives it up when pushy.max_executors or the server's worker slots are used up. The rules are
//! `pushy_core::capacity`'s.

use std::sync::atomic::Ordering;

use pushy_core::capacity::{self, Decision, Doing, ExecutorKey, ExecutorView, SLICE_US};
use pushy_core::slots::{self, Class, Leaves};

use crate::errors::{Error, SqlState};
use crate::pg::ereport;
use crate::settings;
use crate::shared::database::NEVER;
use crate::shared::database_worker::DatabaseWorker;
use crate::shared::executor::{self, ExecutorSlot, ExecutorState};
use crate::worker::launcher::kinds::KINDS;
use crate::worker::launcher::Launcher;

/// The postmaster frees the slot of a worker that has ended within this time.
const SLOT_RETURN_US: i64 = 50_000;

fn observe(executor: &executor::ExecutorSlot) -> Option<ExecutorView> {
    let since = executor.batch_began.load(Ordering::SeqCst);
    let doing = match executor.state() {
        ExecutorState::Free => return None,
        ExecutorState::Starting | ExecutorState::Connecting => Doing::Coming,
        ExecutorState::Stopping => Doing::Going,
        ExecutorState::Idle => Doing::Idle {
            since: executor.idle_since.load(Ordering::SeqCst),
        },
        ExecutorState::Busy if since != 0 => Doing::Batch { since },
        ExecutorState::Busy => Doing::Looking,
    };
    Some(ExecutorView {
        pair: executor.executor_key(),
        started_at: executor.started_at.load(Ordering::SeqCst),
        doing,
        asked_at: executor.asked_to_stop_at(),
    })
}

/// Where there is capacity for an executor.
pub(super) enum Capacity {
    Free,
    /// When the executor in this slot has left.
    After(usize),
}

impl Capacity {
    /// As it was decided of the executors in these slots; if there is none, when to look again.
    fn of(decision: Decision, slots: &[usize]) -> Result<Self, i64> {
        match decision {
            Decision::Start => Ok(Self::Free),
            Decision::Ask(index) => Ok(Self::After(slots[index])),
            Decision::Wait(until) => Err(until.unwrap_or(NEVER)),
        }
    }
}

/// An executor as one that takes a worker slot of the server's.
fn in_slot(executor: &ExecutorView, now: i64) -> slots::Worker {
    let is_held = executor.is_held(now);
    slots::Worker {
        started_at: executor.started_at,
        doing: match executor.doing {
            Doing::Coming => slots::Doing::Coming,
            Doing::Going => slots::Doing::Going,
            Doing::Idle { .. } => slots::Doing::Rests,
            Doing::Batch { .. } if is_held => slots::Doing::Held,
            Doing::Batch { .. } | Doing::Looking => slots::Doing::Works,
        },
        asked_at: executor.asked_at,
    }
}

/// Whoever takes a slot.
#[derive(Clone, Copy)]
enum Taker {
    Executor(&'static ExecutorSlot),
    OfDatabase(&'static DatabaseWorker),
}

impl Launcher {
    /// All executors there are, each with its slot.
    fn observe_all(&self) -> (Vec<usize>, Vec<ExecutorView>) {
        let slots = self.shared.executors.iter().enumerate();
        slots
            .filter_map(|(slot, executor)| Some((slot, observe(executor)?)))
            .unzip()
    }

    /// Whether there is capacity for an executor of the pair, of which so many are busy, or another may be asked to leave for it;
    /// if not, when to look again.
    pub(super) fn find_capacity(
        &self,
        pair: ExecutorKey,
        serving: usize,
        now: i64,
    ) -> Result<Capacity, i64> {
        let (slots, executors) = self.observe_all();
        self.hangs
            .may_start(pair.database, &executors, now)
            .map_err(|at| at.unwrap_or(NEVER))?;
        let decision = capacity::decide(pair, serving, &executors, &settings::capacity(), now);
        if let (Decision::Wait(Some(until)), true) = (decision, serving > 0) {
            // Commits need not call the launcher before.
            let no_capacity_until = &self.shared.no_capacity_until;
            no_capacity_until.store(until, Ordering::SeqCst);
        }
        Capacity::of(decision, &slots)
    }

    /// All worker slots of the server are taken, and somebody has no worker: this pair, or a database (None). Another's leaves, be it
    /// an executor, a scheduler or a relay. Answers when to look again.
    pub(super) fn make_room(&self, pair: Option<ExecutorKey>, now: i64) -> i64 {
        let since = self.lacks_worker_slot_since.unwrap_or(now);
        if now - since < SLOT_RETURN_US {
            return since + SLOT_RETURN_US;
        }
        let shared = self.shared;
        let executors = shared.executors.iter().filter_map(|executor| {
            let seen = observe(executor).filter(|seen| Some(seen.pair) != pair)?;
            Some((Taker::Executor(executor), in_slot(&seen, now)))
        });
        let databases = shared.databases.iter().filter(|slot| slot.oid() != 0);
        let of_databases = databases.flat_map(|slot| {
            let workers = KINDS.iter().map(|kind| kind.of(slot));
            workers.filter_map(|worker| Some((Taker::OfDatabase(worker), worker.in_slot()?)))
        });
        let (takers, workers): (Vec<_>, Vec<_>) = executors.chain(of_databases).unzip();
        match slots::who_leaves(&workers, now) {
            Leaves::Nobody(until) => until,
            // Its exit wakes the launcher.
            Leaves::Ask(index) => {
                match takers[index] {
                    Taker::Executor(executor) => executor.ask_to_stop(),
                    Taker::OfDatabase(worker) => worker.ask_for_slot(now),
                }
                now + SLICE_US
            }
        }
    }

    /// Takes what `find_capacity` has found. If another executor has to leave for it first: when to look again.
    pub(super) fn take_capacity(&self, capacity: &Capacity, now: i64) -> Result<(), i64> {
        match capacity {
            Capacity::Free => Ok(()),
            Capacity::After(slot) => {
                // The executor's exit wakes the launcher.
                self.shared.executors[*slot].ask_to_stop();
                Err(now + SLICE_US)
            }
        }
    }

    /// There are more executors than pushy.max_executors, because it was lowered or because some came from the reserve: those
    /// whose time is over leave. Answers when to look again.
    pub(super) fn stop_surplus(&self, now: i64) -> i64 {
        let limits = settings::capacity();
        // Bounded: each time one more executor is asked.
        loop {
            let (slots, executors) = self.observe_all();
            match capacity::surplus(&executors, &limits, now) {
                Some(index) => self.shared.executors[slots[index]].ask_to_stop(),
                // An executor may have to leave when its job is over, and does not call the launcher then: look again.
                None if executors.len() > limits.most => return now + SLICE_US,
                None => return NEVER,
            }
        }
    }

    /// No worker slot is free: the log says so once, with the setting to raise, until a start has succeeded. Not at the first
    /// look, because a worker that has just ended gives its slot back a moment later.
    pub(super) fn no_worker_slot(&mut self, now: i64) -> i64 {
        self.found_no_slot = true;
        let since = *self.lacks_worker_slot_since.get_or_insert(now);
        if now - since < SLICE_US {
            return now + SLOT_RETURN_US;
        }
        if self.shared.lacks_worker_slot.swap(1, Ordering::SeqCst) == 0 {
            ereport::log(
                &Error::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    "jobs wait: no background worker slot is free",
                )
                .hint("Raise max_worker_processes: Pushy takes pushy.max_executors + pushy.reserved_executors + 2, and one for the relay of each database that has one, beside parallel queries and replication. Tried again every second; this is said once."),
            );
        }
        now + SLICE_US
    }

    /// One of the class was started.
    pub(super) fn got_worker_slot(&mut self, class: Class) {
        self.turn.started(class);
        self.has_started = true;
    }

    /// There was a slot for all that was wanted.
    pub(super) fn nobody_lacks_a_slot(&mut self) {
        self.shared.lacks_worker_slot.store(0, Ordering::SeqCst);
        self.lacks_worker_slot_since = None;
    }
}
