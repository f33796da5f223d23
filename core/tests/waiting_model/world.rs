//! All that the processes share, and where each of them stands.

use crate::scheduler::Scheduler;
use crate::sessions::{Committer, Locker};
use crate::{Beside, Rules};

/// Rows 0 and 1 are enqueued by a transaction each. Row 2 has waited since before the server started, or comes by COMMIT
/// PREPARED.
pub const ROWS: usize = 3;
/// What each of them waits for: the one enqueued later may be due before the other.
pub const TIMES: [u8; ROWS] = [2, 1, 2];
/// The last time there is.
pub const LAST: u8 = 3;
/// A time that never comes.
pub const NEVER: u8 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    /// Nobody but its writer can see it.
    Unborn,
    Waiting,
    /// Ready, and nobody has said so.
    Silent,
    Ready,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub rows: [Row; ROWS],
    /// The row that a session has locked; `NEVER`: none.
    pub locked: u8,
    pub clock: u8,
    pub waiting_from: u8,
    pub due: u8,
    pub sweep_requested: bool,
    pub latch: bool,
    pub committers: [Committer; 2],
    pub prepared: Committer,
    pub locker: Locker,
    pub scheduler: Scheduler,
    /// The queue of the rows is there.
    pub has_queue: bool,
    /// How often definitions have changed.
    pub definitions: u8,
    /// Failures and ends of the scheduler still to come.
    pub troubles: u8,
}

impl World {
    pub fn new(rules: &Rules) -> World {
        let mut rows = [Row::Unborn; ROWS];
        let is_new = rules.beside == Beside::NewQueue;
        if rules.beside != Beside::Prepared && !is_new {
            rows[2] = Row::Waiting;
        }
        World {
            rows,
            locked: NEVER,
            clock: 0,
            waiting_from: 0,
            due: 0,
            sweep_requested: false,
            latch: true,
            committers: [Committer::new(), Committer::new()],
            prepared: Committer::new(),
            locker: Locker::new(),
            scheduler: Scheduler::new(!is_new),
            has_queue: !is_new,
            definitions: 0,
            troubles: u8::from(rules.beside == Beside::Trouble),
        }
    }

    pub fn successors(&self, rules: &Rules, visit: &mut impl FnMut(World)) {
        if self.clock < LAST {
            visit(World {
                clock: self.clock + 1,
                ..*self
            });
        }
        for number in 0..self.committers.len() {
            self.step_committer(rules, number, visit);
        }
        match rules.beside {
            Beside::Locker => self.step_locker(visit),
            Beside::Trouble => self.step_trouble(rules, visit),
            Beside::Prepared => self.step_prepared(Row::Waiting, visit),
            Beside::Storm => visit(World {
                definitions: 1 - self.definitions,
                ..*self
            }),
            Beside::NewQueue => {
                self.step_register(visit);
                self.step_prepared(Row::Silent, visit);
            }
        }
        self.step_scheduler(rules, visit);
    }

    pub fn waits(&self, row: usize) -> bool {
        self.rows[row] == Row::Waiting
    }

    pub fn is_locked(&self, row: usize) -> bool {
        usize::from(self.locked) == row
    }

    /// Says that the scheduler has something to do; true when that is earlier than known.
    pub fn announce_due(&mut self, time: u8) -> bool {
        let earlier = time < self.due;
        self.due = self.due.min(time);
        earlier
    }

    /// A row is due and nobody holds it, or is ready in silence, the scheduler sleeps, and nobody is about to wake it. Or it reads
    /// queues instead.
    pub fn has_forgotten_a_row(&self) -> bool {
        if self.scheduler.has_read_twice() {
            return true;
        }
        let told = self.committers.iter().all(Committer::has_told) && self.prepared.has_told();
        let is_due =
            |row: usize| self.waits(row) && !self.is_locked(row) && TIMES[row] <= self.clock;
        let is_silent = |row: usize| self.rows[row] == Row::Silent;
        // A sweep comes for the row of COMMIT PREPARED, when its rest is over.
        let is_to_come = |row: usize| {
            row == 2
                && self.prepared.has_begun()
                && self.sweep_requested
                && self.scheduler.wakes_by(LAST)
        };
        let is_forgotten = |row: usize| (is_due(row) || is_silent(row)) && !is_to_come(row);
        told && self.scheduler.sleeps(self) && (0..ROWS).any(is_forgotten)
    }
}
