//! Transactions that make rows wait, and a session that locks one.

use crate::world::{Row, World, NEVER, ROWS, TIMES};
use crate::{Fault, Rules};

/// A transaction with one row.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Committer {
    /// Steps done.
    done: u8,
}

impl Committer {
    pub fn new() -> Committer {
        Committer { done: 0 }
    }

    pub fn has_begun(&self) -> bool {
        self.done > 0
    }

    /// It has not begun to commit, or has said all it has to say.
    pub fn has_told(&self) -> bool {
        self.done == 0 || self.done == STEPS
    }
}

const STEPS: u8 = 3;

enum Step {
    Commit,
    AnnounceWaiting,
    AnnounceDue,
}

fn step(rules: &Rules, done: u8) -> Step {
    let order = if rules.breaks(Fault::DueBeforeWaiting) {
        [Step::Commit, Step::AnnounceDue, Step::AnnounceWaiting]
    } else if rules.breaks(Fault::AnnounceBeforeCommit) {
        [Step::AnnounceWaiting, Step::AnnounceDue, Step::Commit]
    } else {
        [Step::Commit, Step::AnnounceWaiting, Step::AnnounceDue]
    };
    let mut order = order.into_iter();
    order.nth(usize::from(done)).expect("there are three")
}

impl World {
    pub fn step_committer(&self, rules: &Rules, number: usize, visit: &mut impl FnMut(World)) {
        let done = self.committers[number].done;
        if done == STEPS || !self.has_queue {
            return;
        }
        let mut next = *self;
        next.committers[number].done += 1;
        let time = TIMES[number];
        match step(rules, done) {
            Step::Commit => next.rows[number] = Row::Waiting,
            Step::AnnounceWaiting if rules.breaks(Fault::SilentCommit) => {}
            Step::AnnounceWaiting => next.waiting_from = next.waiting_from.min(time),
            Step::AnnounceDue => next.latch |= next.announce_due(time),
        }
        visit(next);
    }

    /// The queue is there, and then the counter says so.
    pub fn step_register(&self, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        if !self.has_queue {
            next.has_queue = true;
        } else if self.definitions == 0 {
            next.definitions = 1;
        } else {
            return;
        }
        visit(next);
    }

    /// The row is there, then the sweep is asked for, and then the scheduler is woken. Its commit changes queues too.
    pub fn step_prepared(&self, row: Row, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        match self.prepared.done {
            0 if !self.has_queue => return,
            0 => next.rows[2] = row,
            1 => next.sweep_requested = true,
            2 => {
                next.due = 0;
                next.latch = true;
            }
            _ => return,
        }
        next.prepared.done += 1;
        visit(next);
    }
}

/// A session that locks a row that waits, once, and rolls back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Locker {
    done: u8,
}

impl Locker {
    pub fn new() -> Locker {
        Locker { done: 0 }
    }
}

impl World {
    pub fn step_locker(&self, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        next.locker.done += 1;
        match self.locker.done {
            0 => {
                for row in (0..ROWS).filter(|row| self.waits(*row)) {
                    next.locked = row as u8;
                    visit(next);
                }
            }
            1 => {
                next.locked = NEVER;
                visit(next);
            }
            _ => {}
        }
    }
}
