//! Everything the processes share, and where each of them stands: one state of the model.

use crate::claim::Executor;
use crate::rules::{Rules, EXECUTORS, PRIORITIES, PROCESSES, ROWS};
use crate::sessions::{Enqueuer, Locker};

/// `low` when there is nothing to do, and a position that no row has.
pub const MAX: u8 = u8::MAX;

/// A process number that is none.
pub const NOBODY: u8 = u8::MAX;

/// A row of the job table, as its latest committed version.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Drawn from the sequence; `MAX` until the row is committed.
    pub position: u8,
    /// The process whose transaction locks the row, or `NOBODY`.
    pub holder: u8,
    pub done: bool,
}

impl Row {
    /// Committed and not done: a snapshot taken now sees it among the ready rows.
    pub fn is_ready(&self) -> bool {
        self.position != MAX && !self.done
    }

    /// Ready, and no transaction stands in the way of running it.
    pub fn waits(&self) -> bool {
        self.is_ready() && self.holder == NOBODY
    }
}

/// What an executor's slot says about it; announcers read it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flag {
    Busy,
    Idle,
    /// An announcer has chosen it, and has set its latch or is about to.
    Woken,
    /// It has exited, or is about to and does nothing more but look at the bit.
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    pub flag: Flag,
    pub latch: bool,
}

/// An `announce` that a process is in the middle of; see announce.rs.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Announcing {
    /// The lowest position to announce of each priority, `MAX` for none.
    pub owed: [u8; PRIORITIES],
    /// How far in the order of phases; their number when nothing is announced.
    pub phase: u8,
    /// The executor looked at.
    pub executor: u8,
    /// It was chosen, and its latch is to be set.
    pub chosen: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    Absent,
    Executor(Executor),
    Enqueuer(Enqueuer),
    Locker(Locker),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Process {
    pub announcing: Announcing,
    pub role: Role,
}

/// Failures and delays still to happen; each may come at any moment, or never.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Batches that fail.
    pub aborts: u8,
    /// Batches that commit before they ran all they claimed.
    pub stops: u8,
    /// Executors that exit: asleep, or in a batch that fails.
    pub exits: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub rows: [Row; ROWS],
    /// The next position.
    pub sequence: u8,
    /// The lowest position that may be ready, by priority.
    pub low: [u8; PRIORITIES],
    /// The queue's bit in the bitmap of queues with something to do.
    pub bit: bool,
    /// Somebody found nobody idle, or the bit set when it left, and asks the scheduler for an executor.
    pub wanted: bool,
    pub slots: [Slot; EXECUTORS],
    /// Executors first, so that a process number below `EXECUTORS` is a slot number too.
    pub processes: [Process; PROCESSES],
    pub budget: Budget,
}

/// One atomic step: who, what, and the number it was about (`NOBODY` for none).
#[derive(Clone, Copy)]
pub struct Step {
    pub process: usize,
    pub text: &'static str,
    pub number: u8,
}

impl World {
    pub fn new(rules: &Rules) -> World {
        let role = |process: usize| {
            let enqueuers = rules.enqueuers.len();
            if process < EXECUTORS {
                if process < rules.executors {
                    Role::Executor(Executor::new())
                } else {
                    Role::Absent
                }
            } else if process - EXECUTORS < enqueuers {
                Role::Enqueuer(Enqueuer::new())
            } else if process - EXECUTORS - enqueuers < rules.lockers {
                Role::Locker(Locker::new())
            } else {
                Role::Absent
            }
        };
        let row = Row {
            position: MAX,
            holder: NOBODY,
            done: false,
        };
        let slot = Slot {
            flag: Flag::Busy,
            latch: false,
        };
        World {
            rows: [row; ROWS],
            sequence: 1,
            low: [MAX; PRIORITIES],
            bit: false,
            wanted: false,
            slots: [slot; EXECUTORS],
            processes: std::array::from_fn(|process| Process {
                announcing: Announcing::rest(),
                role: role(process),
            }),
            budget: rules.budget,
        }
    }

    /// Draws a position, as nextval does.
    pub fn draw(&mut self) -> u8 {
        let position = self.sequence;
        self.sequence += 1;
        position
    }

    /// Calls `visit` with each world that one atomic step of one process makes of this one.
    pub fn successors(&self, rules: &Rules, visit: &mut impl FnMut(Step, World)) {
        for process in 0..PROCESSES {
            let state = &self.processes[process];
            let mut visit = |text, number, world| {
                visit(
                    Step {
                        process,
                        text,
                        number,
                    },
                    world,
                )
            };
            if state.announcing.is_under_way() {
                self.step_announce(rules, process, &mut visit);
                continue;
            }
            match &state.role {
                Role::Absent => (),
                Role::Executor(executor) => {
                    self.step_executor(rules, process, executor, &mut visit)
                }
                Role::Enqueuer(enqueuer) => {
                    self.step_enqueuer(rules, process, enqueuer, &mut visit)
                }
                Role::Locker(locker) => self.step_locker(rules, process, locker, &mut visit),
            }
        }
        self.step_scheduler(visit);
    }

    /// A committed row waits that nobody holds, and every process is done or sleeps. Asked of worlds without
    /// a successor only.
    pub fn has_lost_a_row(&self) -> bool {
        self.rows.iter().any(Row::waits)
    }

    /// A row waits and an executor sleeps or is gone, while nothing is under way that would bring them
    /// together: all that happens is transactions of users and running jobs, which may take hours.
    pub fn is_stalled(&self) -> bool {
        let sleeps = |process: &Process, slot: &Slot| match process.role {
            Role::Executor(executor) => executor.is_off_duty(slot.latch),
            _ => false,
        };
        let rests = |number: usize, process: &Process| match process.role {
            _ if process.announcing.is_under_way() => false,
            Role::Executor(executor) => {
                executor.is_running() || sleeps(process, &self.slots[number])
            }
            _ => true,
        };
        let mut processes = self.processes.iter().enumerate();
        !self.wanted
            && self.has_lost_a_row()
            && processes.all(|(number, process)| rests(number, process))
            && self
                .processes
                .iter()
                .zip(&self.slots)
                .any(|(process, slot)| sleeps(process, slot))
    }
}
