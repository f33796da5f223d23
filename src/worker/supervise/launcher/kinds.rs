//! The kinds of workers of which a database has one at most: what they are called, when one is wanted, how it is asked to
//! leave, and how `pushy.workers` shows it. A new kind is one entry more.

use std::sync::atomic::Ordering;

use crate::pg::value::Timestamp;
use crate::pg::{signals, worker};
use crate::relay;
use crate::shared::database::{Database, Presence, NEVER, RELAY, SCHEDULER, SERVANTS};
use crate::shared::database_worker::Servant;
use crate::worker::launcher::Launching;
use crate::worker::scheduler;

pub struct DatabaseKind {
    /// As `pushy.workers` has it.
    pub name: &'static str,
    /// Its process.
    pub(crate) process: &'static worker::Kind,
    /// Its place among the workers of a database in shared memory.
    cell: usize,
    /// From when on (µs) one is wanted in a database that has none, 0 for now; NEVER where none is, or may not come.
    pub(crate) wanted: fn(&mut Launching, &Database, i64) -> i64,
    /// One is started: takes what it was wanted for.
    pub(crate) takes: fn(&mut Launching, &Database, i64) -> i64,
    /// There was no place for its process: puts back what `takes` has answered.
    pub(crate) puts_back: fn(&mut Launching, &Database, i64),
    /// Two hundred databases at the start of the server must not take all of its slots for workers.
    pub(crate) one_after_another: bool,
    /// Asks it to leave, for good or to come back.
    ask_to_leave: fn(&Servant),
    /// What it does, and since when it is there, as far as `pushy.workers` shows it.
    pub shown: fn(&Database) -> (Option<&'static str>, Option<Timestamp>),
}

pub static KINDS: [DatabaseKind; 2] = [
    DatabaseKind {
        name: "scheduler",
        process: &scheduler::KIND,
        cell: SCHEDULER,
        wanted: Launching::scheduler_wanted,
        takes: Launching::take_first_look,
        puts_back: |launching, place, _| launching.forget_look(place),
        one_after_another: true,
        ask_to_leave: terminate,
        shown: |_| (None, None),
    },
    DatabaseKind {
        name: "relay",
        process: &relay::KIND,
        cell: RELAY,
        wanted: |_, place, _| relay_wanted(place),
        takes: |_, place, _| place.log.relay_due.swap(NEVER, Ordering::SeqCst),
        puts_back: |_, place, due| place.log.relay_due.store(due, Ordering::SeqCst),
        one_after_another: false,
        ask_to_leave: terminate,
        shown: |place| {
            let busy = place.log.relay_busy.load(Ordering::SeqCst);
            let word = if busy { "busy" } else { "idle" };
            (Some(word), Some(Timestamp(place.relay().since())))
        },
    },
];

/// Each kind has a cell of its own.
const _: () = {
    let mut at = 0;
    // Bounded: by the kinds, when it is compiled.
    while at < KINDS.len() {
        assert!(KINDS[at].cell == at && at < SERVANTS);
        at += 1;
    }
};

fn terminate(servant: &Servant) {
    signals::terminate(servant.pid());
}

impl DatabaseKind {
    pub fn of<'a>(&self, place: &'a Database) -> &'a Servant {
        &place.servants[self.cell]
    }

    pub fn ask_to_leave(&self, place: &Database) {
        (self.ask_to_leave)(self.of(place));
    }

    /// How many of this kind are on their way, since `from` or later.
    pub(crate) fn coming<'a>(&'a self, places: &'a [Database]) -> impl Iterator<Item = i64> + 'a {
        let taken = places.iter().filter(|place| place.oid() != 0);
        taken.filter_map(|place| self.of(place).coming_since())
    }
}

/// The relay comes where something was logged, or the log has aged.
fn relay_wanted(place: &Database) -> i64 {
    if place.presence() != Presence::Present {
        NEVER
    } else if place.log.is_dirty() {
        0
    } else {
        place.log.relay_due.load(Ordering::SeqCst)
    }
}

/// A scheduler is started so long before something is due: it takes some milliseconds to come up.
const LEAD_US: i64 = 200_000;
/// So long after its start the server is left to those who connect again.
pub(crate) const FIRST_LOOK_US: i64 = 100_000;
/// A look that takes longer, for somebody holds a lock, does not keep others from beginning.
const MOST_LOOK_US: i64 = 1_000_000;
/// The longest rest after a look.
const MOST_REST_US: i64 = 50_000;
/// The longest wait for an executor that is on its way.
const MOST_WAIT_US: i64 = 100_000;

/// The scheduler comes where something is due.
impl Launching {
    fn scheduler_wanted(&mut self, place: &Database, now: i64) -> i64 {
        if place.presence() == Presence::Absent {
            // Another CREATE EXTENSION would begin to count its jobs anew.
            self.recorder.forget_database(place.oid());
            return NEVER;
        }
        if place.presence() == Presence::Unfit {
            return NEVER;
        }
        let due = self.scheduler_due(place);
        if self.is_first_look(place) {
            due.max(self.next_look(now))
        } else {
            due
        }
    }

    fn take_first_look(&mut self, place: &Database, now: i64) -> i64 {
        if self.is_first_look(place) {
            self.look = Some((place.oid(), now));
        }
        0
    }

    fn forget_look(&mut self, place: &Database) {
        self.look = self.look.filter(|(oid, _)| *oid != place.oid());
    }

    /// When the next look into a database that nobody has asked for may begin. Each takes some 10 ms of a core, and
    /// at a start of the server those who connect again want the cores too: one at a time, as long a rest after
    /// each as it took, and none while an executor is on its way to a job.
    fn next_look(&mut self, now: i64) -> i64 {
        if let Some((oid, began)) = self.look {
            let place = self.shared.find_database(oid);
            let is_over = place.is_none_or(|place| {
                place.looked_into.load(Ordering::SeqCst) || place.scheduler().is_absent()
            });
            if !is_over && now < began + MOST_LOOK_US {
                return began + MOST_LOOK_US;
            }
            self.look = None;
            self.look_after = now + (now - began).min(MOST_REST_US);
        }
        let executors = self.shared.executors.iter();
        let coming = executors.filter(|executor| executor.state().is_coming());
        // Each tells us when it has come up.
        let given_up_at =
            coming.map(|executor| executor.started_at.load(Ordering::SeqCst) + MOST_WAIT_US);
        given_up_at.fold(self.look_after, i64::max)
    }

    /// Whether the scheduler would be started for nothing but to see what is there. Somebody may have enqueued
    /// already: that job waits for an executor, not for the scheduler.
    fn is_first_look(&self, place: &Database) -> bool {
        !place.looked_into.load(Ordering::SeqCst) && !self.is_asked_for(place)
    }

    /// When the scheduler of a database is wanted, 0 for now.
    fn scheduler_due(&self, place: &Database) -> i64 {
        if place.presence() == Presence::Unknown || self.is_asked_for(place) {
            return 0;
        }
        let due = place.due.load(Ordering::SeqCst);
        if due == NEVER {
            NEVER
        } else {
            due.saturating_sub(LEAD_US)
        }
    }

    fn is_asked_for(&self, place: &Database) -> bool {
        place.sweep_requested.load(Ordering::SeqCst)
            || place.orphans_requested.load(Ordering::SeqCst)
            || self.recorder.has_verdicts(place.oid())
    }
}
