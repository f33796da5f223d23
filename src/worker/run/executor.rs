//! An executor: runs the jobs of all queues of one role in one database, batch after batch, and sleeps
//! when there are none.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushy_core::backoff;
use pushy_core::standing::Standing;
use rustc_hash::FxHashMap;

use crate::errors::Error;
use crate::installation;
use crate::pg::transaction;
use crate::pg::{clock, database, guc, interrupts, latch, worker};
use crate::settings;
use crate::shared::database::DatabaseSlot;
use crate::shared::executor::{ExecutorSlot, ExecutorState};
use crate::shared::queue_slot::QueueKey;
use crate::shared::Shared;
use crate::worker::batch::{BatchRunner, Ended};
use crate::worker::cancels;
use crate::worker::executor_process::PERMIT;
use crate::worker::failures_in_row::{FailuresInRow, Waits};
use crate::worker::idle_rounds::IdleRounds;
use crate::worker::lost_holds;
use crate::worker::quarantine;
use crate::worker::recorder::Recorder;
use crate::worker::work::Work;

/// So long (µs) it waits for what others do.
const OTHERS_US: i64 = 1_000_000;

/// Forces the settings of the session that follow Pushy's own; again after each reload.
pub(super) fn follow_settings() {
    let mode = if settings::synchronous_commit() {
        "on"
    } else {
        "off"
    };
    guc::force(c"synchronous_commit", mode);
}

pub(in crate::worker) struct Executor {
    pub(in crate::worker) shared: &'static Shared,
    pub(in crate::worker) me: &'static ExecutorSlot,
    pub(in crate::worker) slot: usize,
    pub(in crate::worker) database_slot: &'static DatabaseSlot,
    runner: BatchRunner,
    /// Queues read since a definition changed, by slot; None: this executor may not run it.
    pub(in crate::worker) queues: FxHashMap<usize, Option<Work>>,
    /// There are queues of this role.
    pub(in crate::worker) has_queues: bool,
    /// pushy.databases does not have this database.
    excluded: bool,
    /// The counter of definitions when they were read; None: never.
    pub(in crate::worker) generation: Option<u64>,
    /// The slot behind that of the last batch: where the next look begins.
    pub(in crate::worker) next: usize,
    /// Batches so far: one of a few takes its queue in order, so that each queue is served.
    pub(in crate::worker) batches: u32,
}

impl Executor {
    pub(super) fn new(
        shared: &'static Shared,
        slot: usize,
        database_slot: &'static DatabaseSlot,
        recorder: &'static Recorder,
    ) -> Self {
        Self {
            shared,
            me: &shared.executors[slot],
            slot,
            database_slot,
            runner: BatchRunner::new(slot, recorder),
            queues: FxHashMap::default(),
            has_queues: false,
            generation: None,
            excluded: false,
            next: 0,
            batches: 0,
        }
    }

    pub(super) fn live(mut self) {
        const WHO: &str = "an executor";
        let mut idle = IdleRounds::default();
        let mut failures = FailuresInRow::none(Some(backoff::HELD_US), &WAITS);
        loop {
            interrupts::check();
            self.follow_reload();
            if self.must_stop() {
                return;
            }
            if let Err(failure) = self.refresh_definitions() {
                self.wait_out(failures.count(&failure));
                continue;
            }
            if !self.has_queues {
                return;
            }
            match cancels::recall(self.database_slot) {
                Ok(true) => {}
                Ok(false) => {
                    // The scheduler carries some out, and frees their cells.
                    latch::wait(Some(idle.sleep(WHO, OTHERS_US, false)));
                    continue;
                }
                Err(failure) => {
                    self.wait_out(failures.count(&failure));
                    continue;
                }
            }
            match self.work_once() {
                Some(Ended::Failed(_) | Ended::Worked) => {
                    failures.end();
                    idle.note(WHO, true);
                }
                Some(Ended::Empty | Ended::Parked | Ended::Busy) => {
                    idle.note(WHO, false);
                }
                // Somebody sets the latch; the bound is for one that dies without a word.
                Some(Ended::AwaitsVerdict | Ended::Alone) => {
                    latch::wait(Some(idle.sleep(WHO, OTHERS_US, false)));
                }
                // The launcher starts another, or logs why no executor of the role comes.
                Some(Ended::NoSession) => return,
                None if self.left_by_claims() => idle.note(WHO, false),
                None => {
                    if !self.sleep() {
                        return;
                    }
                }
            }
        }
    }

    fn must_stop(&self) -> bool {
        self.me.stop_requested.load(Ordering::SeqCst)
            || self.database_slot.is_quiesced()
            || !settings::enabled()
            || self.excluded
    }

    /// Reads the settings again if they have changed. Looks itself whether jobs run in this database, because a launcher
    /// that has not heard of the change yet may have started this executor.
    fn follow_reload(&mut self) {
        if guc::reload_if_asked() {
            follow_settings();
            let name = transaction::run(|| Ok(database::name(database::current())));
            self.excluded = match name {
                Ok(Some(name)) => !settings::runs_in(&name),
                _ => false,
            };
        }
    }

    /// Runs a batch of the next queue that has work; None when none has.
    fn work_once(&mut self) -> Option<Ended> {
        let slot = self.choose()?;
        self.next = slot + 1;
        let shared_slot = &self.shared.queues()[slot];
        let Some(key) = shared_slot.key() else {
            return Some(Ended::Empty);
        };
        if let Err(failure) = self.read_queue(slot, key) {
            self.suspend(slot, key, &failure);
            return Some(Ended::Failed(failure));
        }
        let work = self.queues.get(&slot).and_then(Option::as_ref);
        if work.is_none_or(|work| work.queue.key() != key) || !shared_slot.take_permit() {
            return Some(Ended::Empty);
        }
        PERMIT.set(Some((slot, key)));
        if !quarantine::open_batch(self.shared, self.slot) {
            self.return_permit(slot, key);
            return Some(Ended::Alone);
        }
        let keeps_order = shared_slot.concurrency.load(Ordering::SeqCst) == 1;
        let ended = if self.database_slot.has_lost_holds() && !self.recover_holds() && keeps_order {
            Ended::Busy
        } else {
            let (database_slot, generation) = (self.database_slot, self.generation);
            let is_current =
                move || generation == Some(database_slot.definitions.load(Ordering::SeqCst));
            let work = self.queues.get_mut(&slot).and_then(Option::as_mut);
            self.runner.run(work.expect("seen above"), &is_current)
        };
        quarantine::close_batch(self.shared, self.slot);
        self.return_permit(slot, key);
        match &ended {
            Ended::AwaitsVerdict => {
                // This executor's lock on the row may have kept the scheduler from carrying out the verdict.
                self.database_slot.scheduler().wake();
            }
            Ended::Failed(failure) => {
                self.suspend(slot, key, failure);
            }
            Ended::Busy => self.come_back(slot, key),
            Ended::Worked if self.shared.queues()[slot].is_suspended() => {
                self.shared.queues()[slot].end_suspension();
            }
            _ => {}
        }
        Some(ended)
    }

    /// Of a queue that keeps its order no job may start before one that an executor has left. What cannot be put back now is held by
    /// somebody, for whom nobody waits. False: another worker is about to put it back.
    #[cold]
    fn recover_holds(&self) -> bool {
        match lost_holds::recover(self.shared, self.database_slot) {
            Ok(_) => true,
            Err(failure) if failure.is_busy() => false,
            Err(failure) => {
                WAITS.log(&failure);
                true
            }
        }
    }

    /// The server lacks something: the queue waits.
    fn suspend(&self, slot: usize, key: QueueKey, failure: &Error) {
        if failure.is_busy() {
            return self.come_back(slot, key);
        }
        let queue = &self.shared.queues()[slot];
        if queue.is(key) && queue.suspend(clock::now().0) {
            WAITS.log(failure);
        }
        installation::forget_if_gone(self.database_slot);
    }

    /// Somebody holds a lock: the queue waits for a moment, and the executor goes on with other queues.
    fn come_back(&self, slot: usize, key: QueueKey) {
        let queue = &self.shared.queues()[slot];
        if queue.is(key) {
            queue.suspend_until(clock::now().plus_us(backoff::HELD_US).0);
        }
    }

    /// Returns the permit, and wakes an executor if one may have found none left; or a worker outside, if the queue's are these by now.
    fn return_permit(&self, slot: usize, key: QueueKey) {
        PERMIT.set(None);
        let queue = &self.shared.queues()[slot];
        let was_full = queue.return_permit(key);
        if was_full && self.shared.is_ready(slot) || queue.standing().has(Standing::OUTSIDE) {
            self.shared.wake_for(slot);
        }
    }

    /// Sleeps until there is work; false when none came within the time that an executor lingers.
    fn sleep(&mut self) -> bool {
        worker::show_activity(None);
        self.me.become_idle();
        let since = Instant::now();
        let mut report_at = worker::report_statistics().map(|pause| since + pause);
        loop {
            interrupts::check();
            self.follow_reload();
            let changed =
                self.generation != Some(self.database_slot.definitions.load(Ordering::SeqCst));
            if changed || self.must_stop() || self.has_work() {
                self.me.become_busy();
                return true;
            }
            if self.me.state() != ExecutorState::Idle {
                // Another executor has taken the work meanwhile: idle again, then another look.
                self.me.become_idle();
                continue;
            }
            let left = settings::executor_linger().saturating_sub(since.elapsed());
            if left.is_zero() {
                return !self.me.retire();
            }
            let report_in = report_at.map(|at| at.saturating_duration_since(Instant::now()));
            let waits = [Some(left), self.held_for(), report_in];
            latch::wait(waits.into_iter().flatten().min());
            // What jobs have written is in the statistics while their executor sleeps: autovacuum looks there.
            if report_at.is_some_and(|at| at <= Instant::now()) {
                worker::report_all_statistics();
                report_at = None;
            }
        }
    }

    /// After a failure to read the definitions.
    fn wait_out(&self, wait: Duration) {
        installation::forget_if_gone(self.database_slot);
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.must_stop() {
                return;
            }
            latch::wait(Some(left));
        }
    }
}

pub(in crate::worker) static WAITS: Waits = Waits {
    what: "jobs wait",
    detail: Some("Their transaction was rolled back; none is lost."),
    hint: "Executors try again, after {after}; this is said once until it succeeds.",
    backoff: backoff::EXECUTOR,
};
