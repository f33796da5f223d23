//! The scheduler of one database: keeps its times, and leaves when nothing is due soon. Runs no user
//! code.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::recorder::{self, Recorder};
use super::{cancels, retention, servant, timers, verdict};
use crate::errors::{Error, SqlState};
use crate::log;
use crate::pg::failure::Failure;
use crate::pg::per_process::PerProcess;
use crate::pg::transaction;
use crate::pg::worker::Kind;
use crate::pg::{clock, database, ereport, guc, identity, latch, worker};
use crate::queue::definition::Definition;
use crate::shared::database::{Database, Presence, NEVER};
use crate::shared::servant::Servant;
use crate::shared::{self};
use crate::{settings, worker_entry};

pub const KIND: Kind = Kind {
    name: "pushy scheduler",
    entry: "pushy_scheduler_main",
};

/// It stays when something is due within this time, and leaves otherwise.
const LINGER_US: i64 = 5_000_000;

worker_entry!(pushy_scheduler_main, scheduler);

/// `arg`: the database's OID.
fn scheduler(arg: usize) {
    let Some(place) = servant::come(arg as u32, its_servant, leave) else {
        return;
    };
    let recorder = recorder::open();
    guc::force(c"synchronous_commit", "off");
    Scheduling {
        place,
        recorder,
        queues: Vec::new(),
        generation: None,
    }
    .live();
}

/// In the midst of a round: what is due and what was asked for has been taken, and may not be done.
static IN_ROUND: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

fn leave() {
    servant::go(its_servant, |_, place| {
        if IN_ROUND.get() {
            // Terminated: the next one looks at everything.
            place.sweep_requested.store(true, Ordering::SeqCst);
            place.orphans_requested.store(true, Ordering::SeqCst);
            place.cancels_requested.store(true, Ordering::SeqCst);
            place.sweeping.store(false, Ordering::SeqCst);
        }
    });
}

fn its_servant(place: &Database) -> &Servant {
    &place.scheduler
}

struct Scheduling {
    place: &'static Database,
    recorder: &'static Recorder,
    queues: Vec<Definition>,
    /// The counter of definitions when they were read; None: never.
    generation: Option<u64>,
}

impl Scheduling {
    fn live(mut self) {
        let mut failures = 0;
        let mut first = true;
        loop {
            guc::reload_if_asked();
            if self.place.is_quiesced() || !settings::enabled() {
                return;
            }
            IN_ROUND.set(true);
            let outcome = self.round(first);
            IN_ROUND.set(false);
            match outcome {
                Ok(Some(next)) => {
                    failures = 0;
                    first = false;
                    let left = next.saturating_sub(clock::now().0);
                    if left > LINGER_US {
                        return;
                    }
                    worker::show_activity(None);
                    latch::wait(Some(Duration::from_micros(left.max(0) as u64)));
                }
                Ok(None) => return,
                Err(failure) => {
                    failures += 1;
                    if failures == 1 {
                        log_failure(&failure);
                    }
                    latch::wait(Some(Duration::from_millis(100 << failures.min(9))));
                }
            }
        }
    }

    /// Does what is due; answers when something is due next, None for never.
    fn round(&mut self, first: bool) -> Result<Option<i64>, Failure> {
        if !self.refresh()? {
            return Ok(None);
        }
        verdict::carry_out(self.recorder, database::current())?;
        self.look_into_past()?;
        let sweep = self.sweep_if_asked()?;
        if self.place.orphans_requested.swap(false, Ordering::SeqCst) {
            let found = repeat(timers::discard_orphans);
            if found.is_err() {
                self.place.orphans_requested.store(true, Ordering::SeqCst);
            }
            found?;
        }
        if first || sweep {
            retention::adopt()?;
        }
        self.carry_out_cancels(first)?;
        // As with the watermarks of queues: take the time, then look, then put back what is next.
        let due = self.place.due.swap(NEVER, Ordering::SeqCst);
        if due > clock::now().0 && !first {
            self.place.announce_due(due);
            return Ok((due != NEVER).then_some(due));
        }
        let next = self.keep_time();
        match &next {
            Ok(Some(next)) => {
                self.place.announce_due(*next);
            }
            Ok(None) => {}
            Err(_) => {
                self.place.announce_due(due);
            }
        }
        worker::report_statistics();
        // Something may have been announced while we looked.
        next?;
        let due = self.place.due.load(Ordering::SeqCst);
        Ok((due != NEVER).then_some(due))
    }

    /// Looks for rows that nobody announced, if somebody asked for that; true then.
    fn sweep_if_asked(&self) -> Result<bool, Failure> {
        let place = self.place;
        place.sweeping.store(true, Ordering::SeqCst);
        let asked = place.sweep_requested.swap(false, Ordering::SeqCst);
        let swept = if asked { self.sweep() } else { Ok(()) };
        if swept.is_err() {
            place.sweep_requested.store(true, Ordering::SeqCst);
        }
        place.sweeping.store(false, Ordering::SeqCst);
        swept.map(|()| asked)
    }

    fn sweep(&self) -> Result<(), Failure> {
        /// It walks over all rows done since the last vacuum: it takes a hundredth of the time, and rests an hour at most,
        /// for it may have waited for a lock.
        const RESTS: i64 = 100;
        const MOST_US: i64 = 3_600_000_000;
        let began = clock::now();
        transaction::run(|| timers::sweep(&self.queues))?;
        let ended = clock::now();
        let rest = (RESTS * (ended.0 - began.0)).clamp(0, MOST_US);
        let until = ended.plus_us(rest).0;
        self.place.sweep_rests_until.store(until, Ordering::SeqCst);
        Ok(())
    }

    /// Cancels of jobs that nobody held at their commit, or holds any more. What somebody has locked is tried again in a
    /// second.
    fn carry_out_cancels(&self, first: bool) -> Result<(), Failure> {
        if !self.place.cancels_requested.swap(false, Ordering::SeqCst) && !first {
            return Ok(());
        }
        let done = cancels::carry_out_unheld(shared::expect());
        if !matches!(done, Ok(true)) {
            self.place.cancels_requested.store(true, Ordering::SeqCst);
            self.place.announce_due(clock::now().plus_us(1_000_000).0);
        }
        done.map(|_| ())
    }

    /// Once in the life of the server: what was logged before it started, and by whom, nobody remembers, nor whether jobs
    /// were left of a queue then.
    fn look_into_past(&self) -> Result<(), Failure> {
        if self.place.looked_into.load(Ordering::SeqCst) {
            return Ok(());
        }
        if transaction::run(log::is_used)? {
            shared::expect().announce_logged(self.place, false);
        }
        // Where there are no queues at all, a restore has brought the jobs and not yet the queues.
        if !self.queues.is_empty() {
            self.place.orphans_requested.store(true, Ordering::SeqCst);
        }
        self.place.looked_into.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn keep_time(&self) -> Result<Option<i64>, Failure> {
        // Before any snapshot: what commits after that is announced after it.
        let from = self.place.take_waiting();
        let kept = self.keep_time_from(from);
        let waiting = kept.as_ref().map_or(Some(from), |kept| kept.0);
        self.place.announce_waiting(waiting.unwrap_or(NEVER));
        let (waiting, removal) = kept?;
        // What is due and was not done is locked by somebody: look again in a second.
        let now = clock::now();
        Ok(waiting.into_iter().chain(removal).min().map(|next| {
            if next > now.0 {
                next
            } else {
                now.plus_us(1_000_000).0
            }
        }))
    }

    /// For which time the first job waits now, none before `from`, and when something is removed next.
    fn keep_time_from(&self, from: i64) -> Result<(Option<i64>, Option<i64>), Failure> {
        if from != NEVER {
            timers::promote(&self.queues, from)?;
        }
        retention::assign_wanted(self.place)?;
        let removal = retention::remove()?;
        let waiting = if from == NEVER {
            None
        } else {
            transaction::run(|| timers::first_waiting(from))?
        };
        Ok((waiting, removal))
    }

    /// Reads the queues after a change; false when the extension is not here. Until none has changed
    /// meanwhile: what was read before a change and written to shared memory after it undid it there.
    fn refresh(&mut self) -> Result<bool, Failure> {
        loop {
            let generation = self.place.definitions.load(Ordering::SeqCst);
            if self.generation == Some(generation) {
                return Ok(true);
            }
            if !self.read_queues(generation)? {
                return Ok(false);
            }
        }
    }

    fn read_queues(&mut self, generation: u64) -> Result<bool, Failure> {
        let queues = transaction::run(|| {
            if identity::extension_oid().is_none() || worker::is_binary_upgrade() {
                return Ok(None);
            }
            timers::load_queues().map(Some)
        })?;
        let Some(queues) = queues else {
            self.place.set_presence(Presence::Absent);
            self.place.due.store(NEVER, Ordering::SeqCst);
            self.recorder.forget_database(database::current());
            shared::expect().cancels.forget(database::current());
            if self.place.definitions.load(Ordering::SeqCst) == generation {
                shared::expect().free_queues_of(database::current());
            } else {
                // A CREATE EXTENSION has committed while we looked.
                self.place.set_presence(Presence::Unknown);
            }
            return Ok(false);
        };
        self.queues = queues;
        self.generation = Some(generation);
        self.place.set_presence(Presence::Present);
        self.place.scheduler.has_succeeded();
        Ok(true)
    }
}

/// One transaction after another while `step` says that there may be more.
pub(super) fn repeat(mut step: impl FnMut() -> crate::errors::Result<bool>) -> Result<(), Failure> {
    while transaction::run(&mut step)? {
        crate::pg::interrupts::check();
    }
    Ok(())
}

fn log_failure(failure: &Failure) {
    ereport::log(
        &Error::new(
            SqlState::INTERNAL_ERROR,
            format!(
                "the scheduler waits: {} (SQLSTATE {})",
                failure.message, failure.sqlstate
            ),
        )
        .hint("It tries again, after 0.2 to 51 seconds; this is said once until it succeeds."),
    );
}
