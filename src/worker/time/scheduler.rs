//! The scheduler of one database: keeps its times, and leaves when nothing is due soon. Runs no user
//! code.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pushy_core::backoff;
use pushy_core::pace::Pace;
use pushy_core::turns::Turns;

use super::gateway_settings;
use super::leases_due::LeaseLooks;
use super::left_cancels::CancelLook;
use super::orphans::OrphanLook;
use super::sweep::Sweep;
use crate::errors::{Error, Result};
use crate::pg::per_process::PerProcess;
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::worker::WorkerProcess;
use crate::pg::{clock, database, guc, interrupts, latch, worker};
use crate::queue::control_channel;
use crate::queue::definition::QueueDefinition;
use crate::shared;
use crate::shared::database::{DatabaseSlot, NEVER};
use crate::worker::failures_in_row::{FailuresInRow, Waits};
use crate::worker::recorder::{self, Recorder};
use crate::worker::retention::Purge;
use crate::worker::{cancels, crash_verdict, database_worker, lost_holds, retention};
use crate::{settings, worker_entry};

pub const PROCESS: WorkerProcess = WorkerProcess {
    name: "pushy scheduler",
    entry: "pushy_scheduler_main",
};

/// It stays when something is due within this time, and leaves otherwise.
const LINGER: Duration = Duration::from_secs(5);

worker_entry!(pushy_scheduler_main, scheduler);

/// `arg`: which start it is.
fn scheduler(arg: usize) {
    let Some(database_slot) = database_worker::start(arg, DatabaseSlot::scheduler, leave) else {
        return;
    };
    let recorder = recorder::open();
    guc::force(c"synchronous_commit", "off");
    Scheduler {
        database_slot,
        recorder,
        queues: Vec::new(),
        generation: None,
        comes_back: Cell::new(false),
        failed: Cell::new(None),
        turns: Cell::new(None),
        sweep: None,
        cancels: Cell::default(),
        orphans: Cell::new(None),
        by_queue: Cell::new(None),
        purge: Cell::new(None),
        leases: Cell::default(),
    }
    .live();
}

/// In the midst of a round, or between two of which the second goes on with the jobs, the sweep or a look of the first: what is due and what was
/// asked for has been taken, and may not be done.
static IN_ROUND: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

fn leave() {
    database_worker::stop(DatabaseSlot::scheduler, |_, database_slot| {
        if IN_ROUND.get() {
            // Terminated: the next one looks at everything, at once, though sweeps may rest.
            database_slot.announce_waiting(0);
            database_slot.announce_due(0);
            database_slot.sweep_requested.store(true, Ordering::SeqCst);
            database_slot
                .orphans_requested
                .store(true, Ordering::SeqCst);
            database_slot
                .cancels_requested
                .store(true, Ordering::SeqCst);
            database_slot.sweeping.store(false, Ordering::SeqCst);
            database_slot.announce_lease_end(0);
            database_slot.sessions_known.store(false, Ordering::SeqCst);
        }
    });
}

pub(super) struct Scheduler {
    pub(super) database_slot: &'static DatabaseSlot,
    pub(super) recorder: &'static Recorder,
    pub(super) queues: Vec<QueueDefinition>,
    /// The counter of definitions when they were read; None: never.
    pub(super) generation: Option<u64>,
    /// Something was passed over in this round, because somebody holds what it needs.
    comes_back: Cell<bool>,
    /// Why a step of this round could not be done, the first of them; the others were done.
    failed: Cell<Option<Error>>,
    /// Due jobs of which some are ready, and others await their turn.
    pub(super) turns: Cell<Option<Turns>>,
    /// The sweep under way.
    pub(super) sweep: Option<Sweep>,
    /// The look at cancels that is under way.
    pub(super) cancels: Cell<CancelLook>,
    /// The look for jobs whose queue is gone that is under way.
    pub(super) orphans: Cell<Option<OrphanLook>>,
    /// Due jobs that are made ready queue by queue: the next queue, and how many there are still to be looked at.
    pub(super) by_queue: Cell<Option<(usize, usize)>>,
    /// The removal of what dropped queues have left that is under way.
    pub(super) purge: Cell<Option<Purge>>,
    pub(super) leases: Cell<LeaseLooks>,
}

impl Scheduler {
    fn live(mut self) {
        let mut failures = FailuresInRow::none(Some(backoff::HELD_OF_SCHEDULER_US), &WAITS);
        let mut pace = Pace::default();
        let mut first = true;
        loop {
            guc::reload_if_asked();
            interrupts::check();
            if self.database_slot.is_quiesced() || !settings::enabled() {
                return;
            }
            IN_ROUND.set(true);
            let me = self.database_slot.scheduler();
            me.set_rests(false);
            let outcome = self.round(first);
            IN_ROUND.set(self.has_turns() || self.sweep.is_some() || self.is_on_its_way());
            match outcome {
                Ok(next) => {
                    let failed = self.failed.take();
                    let Some(next) = next.or(failed.is_some().then_some(NEVER)) else {
                        return;
                    };
                    let mut left =
                        Duration::from_micros(pace.sleep_us(next, clock::now().0) as u64);
                    if let Some(failure) = failed {
                        left = left.min(failures.count(&failure));
                    } else {
                        failures.end();
                        first = false;
                        if left > LINGER {
                            return;
                        }
                    }
                    if me.is_asked_for_slot() && self.sweep.is_none() {
                        // The next one goes on, in its turn; it would begin the sweep anew.
                        if self.has_turns() {
                            self.database_slot.announce_waiting(0);
                        }
                        self.put_back_looks();
                        let due = clock::now().0 + left.as_micros() as i64;
                        self.database_slot.announce_due(due);
                        IN_ROUND.set(false);
                        return;
                    }
                    worker::show_activity(None);
                    me.set_rests(!IN_ROUND.get());
                    latch::wait(Some(left));
                }
                Err(failure) => {
                    let left = failures.count(&failure);
                    if me.is_asked_for_slot() {
                        me.put_off(clock::now().0 + left.as_micros() as i64);
                        return;
                    }
                    me.set_rests(true);
                    latch::wait(Some(left));
                }
            }
        }
    }

    /// Does what is due; answers when something is due next, None for never. What somebody holds is passed over.
    fn round(&mut self, first: bool) -> Result<Option<i64>> {
        self.comes_back.set(false);
        self.failed.set(None);
        if !self.refresh()? {
            self.forget_sweep();
            self.leases.take();
            return Ok(None);
        }
        let next = self.do_what_is_due(first)?;
        if !self.comes_back.get() {
            return Ok(next);
        }
        let again = clock::now().plus_us(backoff::HELD_OF_SCHEDULER_US).0;
        self.database_slot.announce_due(again);
        Ok(Some(next.map_or(again, |next| next.min(again))))
    }

    fn do_what_is_due(&mut self, first: bool) -> Result<Option<i64>> {
        // As with the watermarks of queues: take the time, then look, then put back what is next. Before the first step, because what is
        // asked for behind a step is the next round's, and would be nobody's if this round took its time.
        let due = self.database_slot.due.swap(NEVER, Ordering::SeqCst);
        self.pass_over(gateway_settings::read(self.database_slot, first));
        let recalled = self.pass_over(cancels::recall(self.database_slot));
        self.come_back_unless(recalled.unwrap_or(false));
        let recovered = lost_holds::recover(shared::expect(), self.database_slot);
        let recovered = self.pass_over(recovered);
        self.come_back_unless(recovered.unwrap_or(false));
        let judged = self.pass_over(crash_verdict::apply_all(self.recorder, database::current()));
        self.come_back_unless(judged.unwrap_or(false));
        self.pass_over(self.inspect());
        if first {
            self.pass_over(retention::adopt());
        }
        self.pass_over(self.carry_out_cancels(first));
        self.do_what_has_its_time(first, due);
        // Behind due jobs, because these look through all jobs, and anybody can have them asked for.
        let begun = self.begin_sweep_if_asked();
        if self.pass_over(begun).unwrap_or(false) {
            self.pass_over(retention::adopt());
        }
        let swept = self.go_on_with_sweep();
        self.pass_over(swept);
        self.pass_over(self.discard_orphans_if_asked());
        let rest = [self.next_reading(), self.next_sweep()];
        for at in rest.into_iter().flatten() {
            self.database_slot.announce_due(at);
        }
        // Something may have been announced while we looked.
        let due = self.database_slot.due.load(Ordering::SeqCst);
        Ok((due != NEVER).then_some(due))
    }

    /// `due`: the time at which the first of it was to be done.
    fn do_what_has_its_time(&self, first: bool, due: i64) {
        if due > clock::now().0 && !first && !self.has_turns() {
            self.database_slot.announce_due(due);
            return;
        }
        if self.database_slot.has_held.swap(false, Ordering::SeqCst) {
            shared::expect().announce_all_held(database::current());
        }
        let unpublished = self.pass_over(control_channel::publish_late(self.database_slot));
        if let Some(at) = unpublished.flatten() {
            self.database_slot.announce_due(at);
        }
        let (next, is_to_be_tried_again) = self.keep_time();
        if let Some(next) = next {
            self.database_slot.announce_due(next);
        }
        if is_to_be_tried_again {
            self.database_slot.announce_due(due);
        }
        worker::report_statistics();
    }

    /// None when this step could not be done: the round goes on with the next step, because none needs another, and another
    /// round follows, soon where somebody holds what the step needs. It has put back what it was asked to do.
    pub(super) fn pass_over<T>(&self, step: Result<T>) -> Option<T> {
        match step {
            Ok(done) => return Some(done),
            Err(failure) if failure.is_busy() => self.come_back_unless(false),
            Err(failure) => {
                let before = self.failed.take();
                self.failed.set(before.or(Some(failure)));
            }
        }
        None
    }

    pub(super) fn come_back_unless(&self, all_is_done: bool) {
        if !all_is_done {
            self.comes_back.set(true);
        }
    }

    /// It has begun to look at all jobs, at all cancels, or at leases, for which it was asked.
    fn is_on_its_way(&self) -> bool {
        self.orphans.get().is_some()
            || self.cancels.get().is_midway()
            || self.is_looking_at_leases()
    }

    /// The next scheduler begins anew.
    fn put_back_looks(&self) {
        self.leases.take().give_up(self.database_slot);
        if self.orphans.take().is_some() {
            self.database_slot
                .orphans_requested
                .store(true, Ordering::SeqCst);
        }
        if self.cancels.take().is_midway() {
            self.database_slot
                .cancels_requested
                .store(true, Ordering::SeqCst);
        }
    }
}

/// When to look again after a look that began then and found this time to be next: what was due by then and was not done is
/// locked by somebody. What has become due since gets its look at once.
pub(in crate::worker) fn after_look(began: Timestamp, next: i64) -> i64 {
    if next > began.0 {
        return next;
    }
    clock::now().plus_us(backoff::HELD_OF_SCHEDULER_US).0
}

/// One transaction after another while `step` says that there may be more, and `between` two of them that; false when
/// somebody holds what it needs.
pub(in crate::worker) fn repeat(
    between: &dyn Fn() -> Result<()>,
    mut step: impl FnMut() -> crate::errors::Result<bool>,
) -> Result<bool> {
    loop {
        match transaction::run_unless_busy(&mut step)? {
            None => return Ok(false),
            Some(false) => return Ok(true),
            Some(true) => interrupts::check(),
        }
        between()?;
    }
}

static WAITS: Waits = Waits {
    what: "the scheduler waits",
    detail: None,
    hint: "It tries again, after {after}; this is said once until it succeeds.",
    backoff: backoff::SCHEDULER,
};
