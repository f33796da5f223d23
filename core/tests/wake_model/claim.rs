//! claim: clear the bit, swap `low`, take a snapshot, lock rows, announce what is left; run; commit or fail.

use crate::pack::{Packer, POSITION};
use crate::rules::{Fault, Rules, PRIORITIES, ROWS};
use crate::world::{Role, World, MAX, NOBODY};

/// What an executor does next. The steps from `Publish` on are in idle.rs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum At {
    /// Swap the bit to clear; claim if it was set.
    Look,
    /// Swap `low` of the priority.
    Swap,
    /// Only when a fault has put it here: clear the bit.
    Clear,
    /// Take the statement's snapshot.
    Snapshot,
    /// Lock the next row of the snapshot, or skip it.
    Select,
    /// Look whether a lower priority still has something announced.
    Leave,
    /// Run the jobs, then end the transaction.
    Run,
    /// Write the flag: idle.
    Publish,
    /// Look at the bit once more.
    Recheck,
    /// Write the flag: busy.
    Retract,
    /// Only when a fault has put it here: reset the latch.
    Reset,
    /// Wait for the latch.
    Sleep,
    /// Write the flag: gone.
    Exit,
    /// Look at the bit for the last time.
    LastLook,
    /// Not running.
    Gone,
}

/// Where an executor stands, and the variables of its claim; these are at rest outside a claim, so that
/// worlds that differ in nothing of consequence are the same world.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Executor {
    pub at: At,
    priority: u8,
    /// What the swap gave: claim from this position on.
    a: u8,
    /// Positions of the rows that the snapshot sees, `MAX` for those it does not see or has gone past.
    seen: [u8; ROWS],
    /// The position by which the last locked row was found.
    last: u8,
    /// The position that row has now.
    last_now: u8,
    /// A locked row has another position than the snapshot saw.
    moved: bool,
}

impl Executor {
    pub fn new() -> Executor {
        Executor::at(At::Look)
    }

    pub fn at(at: At) -> Executor {
        Executor {
            at,
            priority: 0,
            a: MAX,
            seen: [MAX; ROWS],
            last: MAX,
            last_now: MAX,
            moved: false,
        }
    }

    pub fn pack(&self, to: &mut Packer) {
        to.push(self.at as u8, 5);
        to.push(self.priority, 2);
        to.push(self.a, POSITION);
        for seen in self.seen {
            to.push(seen, POSITION);
        }
        to.push(self.last, POSITION);
        to.push(self.last_now, POSITION);
        to.push_flag(self.moved);
    }

    pub fn is_running(&self) -> bool {
        self.at == At::Run
    }

    /// Asleep with nothing to wake it, or gone.
    pub fn is_off_duty(&self, latch: bool) -> bool {
        self.at == At::Gone || self.at == At::Sleep && !latch
    }

    /// The first step of the claim from one priority.
    fn begin(priority: u8, rules: &Rules) -> Executor {
        let at = if rules.breaks(Fault::SnapshotBeforeSwap) {
            At::Snapshot
        } else {
            At::Swap
        };
        Executor {
            priority,
            ..Executor::at(at)
        }
    }

    /// On to the next priority, or to sleep after the last one.
    fn next_priority(&self, rules: &Rules) -> Executor {
        let priority = self.priority + 1;
        if usize::from(priority) < rules.priorities() {
            Executor::begin(priority, rules)
        } else {
            Executor::idle(rules)
        }
    }

    /// The row of the snapshot with the lowest position not gone past.
    fn candidate(&self) -> Option<usize> {
        let rows = (0..ROWS).filter(|row| self.seen[*row] != MAX && self.seen[*row] >= self.a);
        rows.min_by_key(|row| self.seen[*row])
    }
}

impl World {
    fn held_by(&self, process: usize) -> impl Iterator<Item = usize> + '_ {
        (0..ROWS).filter(move |row| usize::from(self.rows[*row].holder) == process)
    }

    pub fn step_executor(
        &self,
        rules: &Rules,
        process: usize,
        executor: &Executor,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        let mut next = *self;
        let mut to = *executor;
        let priority = usize::from(executor.priority);
        let late_clear = rules.breaks(Fault::ClearAfterSwap);
        let early_snapshot = rules.breaks(Fault::SnapshotBeforeSwap);
        let (text, number) = match executor.at {
            At::Look if !self.bit => {
                to = Executor::idle(rules);
                ("claim: finds the bit clear", NOBODY)
            }
            At::Look => {
                next.bit = late_clear;
                to = Executor::begin(0, rules);
                ("claim: finds the bit set, clears it", NOBODY)
            }
            At::Swap => {
                to.a = std::mem::replace(&mut next.low[priority], MAX);
                let a = to.a;
                if late_clear {
                    to.at = At::Clear;
                } else if a == MAX {
                    to = executor.next_priority(rules);
                } else if early_snapshot {
                    to.at = At::Select;
                    to = next.settle_selection(rules, process, &to);
                } else {
                    to.at = At::Snapshot;
                }
                match a {
                    MAX => ("claim: swap(low, MAX) gives MAX", NOBODY),
                    a => ("claim: a = swap(low, MAX), a =", a),
                }
            }
            At::Clear => {
                next.bit = false;
                if executor.a == MAX {
                    to = executor.next_priority(rules);
                } else {
                    to.at = At::Snapshot;
                }
                ("claim: clears the bit", NOBODY)
            }
            At::Snapshot => {
                for row in 0..ROWS {
                    let of_priority = rules.priority(row) == priority;
                    let below = executor.a != MAX && self.rows[row].position < executor.a;
                    if self.rows[row].is_ready() && of_priority && !below {
                        to.seen[row] = self.rows[row].position;
                    }
                }
                if early_snapshot {
                    to.at = At::Swap;
                } else {
                    to.at = At::Select;
                    to = next.settle_selection(rules, process, &to);
                }
                ("claim: takes its snapshot", NOBODY)
            }
            At::Select => {
                let row = executor.candidate().expect("settled when there is none");
                let found = std::mem::replace(&mut to.seen[row], MAX);
                let text = if self.rows[row].waits() {
                    next.rows[row].holder = process as u8;
                    to.last = found;
                    to.last_now = self.rows[row].position;
                    to.moved |= to.last_now != found;
                    "claim: locks the row it saw at"
                } else {
                    "claim: skips the row it saw at"
                };
                to = next.settle_selection(rules, process, &to);
                (text, found)
            }
            At::Leave => {
                if self.low[priority + 1..].iter().any(|low| *low != MAX) {
                    match rules.fault {
                        Fault::LeavesNoBit => (),
                        Fault::LeavesBitWakesNobody => next.bit = true,
                        _ => next.announce(rules, process, [MAX; PRIORITIES]),
                    }
                }
                to.at = At::Run;
                ("claim: looks at the priorities it leaves", NOBODY)
            }
            At::Run => {
                for row in self.held_by(process) {
                    next.rows[row].holder = NOBODY;
                    next.rows[row].done = true;
                }
                to = Executor::new();
                ("runs its jobs and commits", NOBODY)
            }
            _ => return self.step_idle(rules, process, executor, visit),
        };
        next.processes[process].role = Role::Executor(to);
        visit(text, number, next);

        if executor.a != MAX {
            self.fail_claim(rules, process, executor, visit);
        }
        if executor.at == At::Run {
            self.stop_early(rules, process, executor, visit);
        }
    }

    /// Once the statement is over, announces what follows a full claim, and goes on.
    fn settle_selection(&mut self, rules: &Rules, process: usize, executor: &Executor) -> Executor {
        let count = self.held_by(process).count() as u32;
        let priority = usize::from(executor.priority);
        if count < rules.claim && executor.candidate().is_some() {
            return *executor;
        }
        if count == 0 {
            return executor.next_priority(rules);
        }
        let full = count == rules.claim;
        if full && !rules.breaks(Fault::NoReannounce) {
            let from = if rules.breaks(Fault::ReannounceMovedPosition) {
                executor.last_now + 1
            } else if executor.moved {
                executor.a
            } else {
                executor.last + 1
            };
            if rules.breaks(Fault::ReannounceWakesNobody) {
                self.low[priority] = self.low[priority].min(from);
                self.bit = true;
            } else {
                self.announce_one(rules, process, priority, from);
            }
        }
        let leaves = !full && priority + 1 < rules.priorities();
        Executor {
            at: if leaves { At::Leave } else { At::Run },
            priority: executor.priority,
            a: executor.a,
            ..Executor::new()
        }
    }

    /// The transaction fails, anywhere between the swap and the commit; the executor may go down with it.
    fn fail_claim(
        &self,
        rules: &Rules,
        process: usize,
        executor: &Executor,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        if self.budget.aborts == 0 {
            return;
        }
        let mut next = *self;
        next.budget.aborts -= 1;
        for row in self.held_by(process) {
            next.rows[row].holder = NOBODY;
        }
        next.processes[process].role = Role::Executor(Executor::new());
        if !rules.breaks(Fault::SilentFailure) {
            let priority = usize::from(executor.priority);
            next.announce_one(rules, process, priority, executor.a);
        }
        visit("fails and aborts, a =", executor.a, next);
        if self.budget.exits > 0 {
            next.budget.exits -= 1;
            next.processes[process].role = Role::Executor(Executor::at(At::Exit));
            visit("is terminated and aborts, a =", executor.a, next);
        }
    }

    /// The batch commits after its first job and gives the other rows back.
    fn stop_early(
        &self,
        rules: &Rules,
        process: usize,
        executor: &Executor,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        if self.budget.stops == 0 || self.held_by(process).count() < 2 {
            return;
        }
        let mut next = *self;
        next.budget.stops -= 1;
        let mut held: Vec<usize> = self.held_by(process).collect();
        held.sort_by_key(|row| self.rows[*row].position);
        for row in &held {
            next.rows[*row].holder = NOBODY;
        }
        next.rows[held[0]].done = true;
        let given_up = self.rows[held[1]].position;
        next.processes[process].role = Role::Executor(Executor::new());
        if !rules.breaks(Fault::SilentStop) {
            next.announce_one(rules, process, usize::from(executor.priority), given_up);
        }
        visit("commits after one job, gives up from", given_up, next);
    }
}
