//! The scheduler of one database: keeps its times, and leaves when nothing is due soon. Runs no user
//! code.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pushy_core::backoff;
use pushy_core::pace::Pace;
use pushy_core::turns::Turns;

use crate::errors::{Error, Result};
use crate::log;
use crate::pg::per_process::PerProcess;
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::worker::WorkerKind;
use crate::pg::{clock, database, guc, identity, interrupts, latch, worker};
use crate::queue::cache;
use crate::queue::control_channel;
use crate::queue::definition::QueueDefinition;
use crate::shared;
use crate::shared::database::{DatabaseSlot, NEVER};
use crate::worker::failures_in_row::{FailuresInRow, Waits};
use crate::worker::recorder::{self, Recorder};
use crate::worker::{cancels, crash_verdict, database_worker, retention, timers};
use crate::{settings, worker_entry};

pub const KIND: WorkerKind = WorkerKind {
    name: "pushy scheduler",
    entry: "pushy_scheduler_main",
};

/// It stays when something is due within this time, and leaves otherwise.
const LINGER: Duration = Duration::from_secs(5);

worker_entry!(pushy_scheduler_main, scheduler);

/// `arg`: its ticket.
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
    }
    .live();
}

/// In the midst of a round, or between two of which the second goes on with the jobs of the first: what is due and what was
/// asked for has been taken, and may not be done.
static IN_ROUND: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

fn leave() {
    database_worker::stop(DatabaseSlot::scheduler, |_, database_slot| {
        if IN_ROUND.get() {
            // Terminated: the next one looks at everything.
            database_slot.sweep_requested.store(true, Ordering::SeqCst);
            database_slot
                .orphans_requested
                .store(true, Ordering::SeqCst);
            database_slot
                .cancels_requested
                .store(true, Ordering::SeqCst);
            database_slot.sweeping.store(false, Ordering::SeqCst);
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
            let outcome = self.round(first);
            IN_ROUND.set(self.has_turns());
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
                    worker::show_activity(None);
                    latch::wait(Some(left));
                }
                Err(failure) => latch::wait(Some(failures.count(&failure))),
            }
        }
    }

    /// Does what is due; answers when something is due next, None for never. What somebody holds is passed over.
    fn round(&mut self, first: bool) -> Result<Option<i64>> {
        self.comes_back.set(false);
        self.failed.set(None);
        if !self.refresh()? {
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

    fn do_what_is_due(&self, first: bool) -> Result<Option<i64>> {
        let recalled = self.pass_over(cancels::recall(self.database_slot));
        self.come_back_unless(recalled.unwrap_or(false));
        let judged = self.pass_over(crash_verdict::apply_all(self.recorder, database::current()));
        self.come_back_unless(judged.unwrap_or(false));
        self.pass_over(self.inspect());
        let sweep = self.pass_over(self.sweep_if_asked()).unwrap_or(false);
        if first || sweep {
            self.pass_over(retention::adopt());
        }
        self.pass_over(self.carry_out_cancels(first));
        self.do_what_has_its_time(first);
        // Behind due jobs, because it looks through all jobs, and anybody can have it asked for.
        self.pass_over(self.discard_orphans_if_asked());
        // Something may have been announced while we looked.
        let due = self.database_slot.due.load(Ordering::SeqCst);
        Ok((due != NEVER).then_some(due))
    }

    fn do_what_has_its_time(&self, first: bool) {
        // As with the watermarks of queues: take the time, then look, then put back what is next.
        let due = self.database_slot.due.swap(NEVER, Ordering::SeqCst);
        if due > clock::now().0 && !first && !self.has_turns() {
            self.database_slot.announce_due(due);
            return;
        }
        if self.database_slot.has_held.swap(false, Ordering::SeqCst) {
            self.announce_held();
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

    fn come_back_unless(&self, all_is_done: bool) {
        if !all_is_done {
            self.comes_back.set(true);
        }
    }

    /// Has the ready jobs tried again that somebody kept locked.
    fn announce_held(&self) {
        for queue in &self.queues {
            if let Some(slot) = cache::slot_of(queue) {
                shared::expect().announce_held(slot, queue.key());
            }
        }
    }

    /// A look goes through all jobs that wait: it gets a hundredth of the time, and rests a minute at most.
    fn discard_orphans_if_asked(&self) -> Result<()> {
        const RESTS: i64 = 100;
        const MOST_US: i64 = 60_000_000;
        let (slot, began) = (self.database_slot, clock::now());
        let rests_until = slot.orphans_rest_until.load(Ordering::SeqCst);
        if (began.0..began.0 + MOST_US).contains(&rests_until) {
            if slot.orphans_requested.load(Ordering::SeqCst) {
                slot.announce_due(rests_until);
            }
            return Ok(());
        }
        if !self
            .database_slot
            .orphans_requested
            .swap(false, Ordering::SeqCst)
        {
            return Ok(());
        }
        let found = repeat(&|| Ok(()), timers::discard_orphans);
        let rest = (RESTS * (clock::now().0 - began.0)).clamp(0, MOST_US);
        let rests_until = clock::now().plus_us(rest).0;
        slot.orphans_rest_until.store(rests_until, Ordering::SeqCst);
        if !matches!(found, Ok(true)) {
            self.database_slot
                .orphans_requested
                .store(true, Ordering::SeqCst);
            self.come_back_unless(false);
        }
        found.map(|_| ())
    }

    /// Looks for rows that nobody announced, if somebody asked for that; true then.
    fn sweep_if_asked(&self) -> Result<bool> {
        let database_slot = self.database_slot;
        database_slot.sweeping.store(true, Ordering::SeqCst);
        let asked = database_slot.sweep_requested.swap(false, Ordering::SeqCst);
        let swept = if asked { self.sweep() } else { Ok(()) };
        if swept.is_err() {
            database_slot.sweep_requested.store(true, Ordering::SeqCst);
        }
        database_slot.sweeping.store(false, Ordering::SeqCst);
        swept.map(|()| asked)
    }

    fn sweep(&self) -> Result<()> {
        /// A sweep walks over all rows done since the last vacuum: it gets a hundredth of the time, and rests an hour at
        /// most, because it may have waited for a lock.
        const RESTS: i64 = 100;
        const MOST_US: i64 = 3_600_000_000;
        let began = clock::now();
        transaction::run(timers::sweep)?;
        let ended = clock::now();
        let rest = (RESTS * (ended.0 - began.0)).clamp(0, MOST_US);
        let until = ended.plus_us(rest).0;
        self.database_slot
            .sweep_rests_until
            .store(until, Ordering::SeqCst);
        Ok(())
    }

    /// Carries out cancels of jobs that no executor holds. Jobs that somebody has locked are tried again soon.
    fn carry_out_cancels(&self, first: bool) -> Result<()> {
        if !self
            .database_slot
            .cancels_requested
            .swap(false, Ordering::SeqCst)
            && !first
        {
            return Ok(());
        }
        let done = cancels::cancel_unheld(shared::expect());
        if !matches!(done, Ok(true)) {
            self.database_slot
                .cancels_requested
                .store(true, Ordering::SeqCst);
            self.come_back_unless(false);
        }
        done.map(|_| ())
    }

    /// Once after a start of the server: events logged before it, and jobs left of queues that are gone, are in nobody's
    /// memory.
    fn inspect(&self) -> Result<()> {
        if self.database_slot.is_inspected.load(Ordering::SeqCst) {
            return Ok(());
        }
        let is_relay_due = || Ok(log::is_used()? || log::is_timeline_news()?);
        if transaction::run(|| identity::as_owner(is_relay_due))? {
            shared::expect().announce_logged(self.database_slot, false);
        }
        // Where there are no queues at all, a restore has brought the jobs and not yet the queues.
        if !self.queues.is_empty() {
            self.database_slot
                .orphans_requested
                .store(true, Ordering::SeqCst);
        }
        self.database_slot
            .is_inspected
            .store(true, Ordering::SeqCst);
        Ok(())
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
