//! Sessions of users: one enqueues, one holds the lock of a ready row for a while.

use crate::pack::{Packer, NUMBER, POSITION};
use crate::rules::{Fault, Rules, EXECUTORS, PRIORITIES, ROWS};
use crate::world::{Role, World, MAX, NOBODY};

/// Draws a position for each of its rows and inserts them; commits; announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Enqueuer {
    drawn: [u8; ROWS],
    done: bool,
}

/// Locks a ready row as `job_cancel` does; commits or aborts, either way leaving it ready; announces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Locker {
    /// The row it holds, or `NOBODY`.
    row: u8,
    /// The row's new position, or `MAX`.
    drawn: u8,
    done: bool,
}

impl Enqueuer {
    pub fn new() -> Enqueuer {
        Enqueuer {
            drawn: [MAX; ROWS],
            done: false,
        }
    }

    pub fn pack(&self, to: &mut Packer) {
        for drawn in self.drawn {
            to.push(drawn, POSITION);
        }
        to.push_flag(self.done);
    }
}

impl Locker {
    pub fn new() -> Locker {
        Locker {
            row: NOBODY,
            drawn: MAX,
            done: false,
        }
    }

    pub fn pack(&self, to: &mut Packer) {
        to.push(self.row, NUMBER);
        to.push(self.drawn, POSITION);
        to.push_flag(self.done);
    }

    fn finished() -> Locker {
        Locker {
            done: true,
            ..Locker::new()
        }
    }
}

impl World {
    pub fn step_enqueuer(
        &self,
        rules: &Rules,
        process: usize,
        enqueuer: &Enqueuer,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        if enqueuer.done {
            return;
        }
        let number = process - EXECUTORS;
        let first = rules.first_row(number);
        let mine = first..first + rules.enqueuers[number].len();
        let mut next = *self;

        if let Some(row) = mine.clone().find(|row| enqueuer.drawn[*row] == MAX) {
            let position = next.draw();
            let mut enqueuer = *enqueuer;
            enqueuer.drawn[row] = position;
            next.processes[process].role = Role::Enqueuer(enqueuer);
            let last = row + 1 == mine.end;
            if last && rules.breaks(Fault::AnnounceBeforeCommit) {
                next.announce(rules, process, enqueuer.lowest(rules));
            }
            visit("draws a position and inserts, p =", position, next);
            return;
        }
        for row in mine {
            next.rows[row].position = enqueuer.drawn[row];
        }
        next.processes[process].role = Role::Enqueuer(Enqueuer {
            done: true,
            ..Enqueuer::new()
        });
        if !rules.breaks(Fault::AnnounceBeforeCommit) {
            next.announce(rules, process, enqueuer.lowest(rules));
        }
        visit("commits", NOBODY, next);
    }

    pub fn step_locker(
        &self,
        rules: &Rules,
        process: usize,
        locker: &Locker,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        if locker.done {
            return;
        }
        if locker.row == NOBODY {
            let mut next = *self;
            next.processes[process].role = Role::Locker(Locker::finished());
            visit("leaves without locking", NOBODY, next);
            for row in (0..ROWS).filter(|row| self.rows[*row].waits()) {
                let mut next = *self;
                next.rows[row].holder = process as u8;
                next.processes[process].role = Role::Locker(Locker {
                    row: row as u8,
                    ..*locker
                });
                visit("locks the row at", self.rows[row].position, next);
            }
            return;
        }

        if rules.lockers_move && locker.drawn == MAX {
            let mut next = *self;
            let position = next.draw();
            next.processes[process].role = Role::Locker(Locker {
                drawn: position,
                ..*locker
            });
            visit("draws a new position for its row, p =", position, next);
        }
        let row = usize::from(locker.row);
        let priority = rules.priority(row);
        for commits in [true, false] {
            let mut next = *self;
            let held = &mut next.rows[row];
            held.holder = NOBODY;
            if commits && locker.drawn != MAX {
                held.position = locker.drawn;
            }
            let position = held.position;
            next.processes[process].role = Role::Locker(Locker::finished());
            let silent = if commits {
                Fault::SilentCommit
            } else {
                Fault::SilentAbort
            };
            if !rules.breaks(silent) {
                next.announce_one(rules, process, priority, position);
            }
            let text = if commits {
                "commits, its row is unlocked at"
            } else {
                "aborts, its row is unlocked at"
            };
            visit(text, position, next);
        }
    }
}

impl Enqueuer {
    /// The lowest position it drew in each priority.
    fn lowest(&self, rules: &Rules) -> [u8; PRIORITIES] {
        let mut lowest = [MAX; PRIORITIES];
        for (row, position) in self.drawn.into_iter().enumerate() {
            let of = &mut lowest[rules.priority(row)];
            *of = position.min(*of);
        }
        lowest
    }
}
