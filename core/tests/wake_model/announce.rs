//! announce: write `low`, set the bit, then wake an idle executor.

use crate::rules::{Fault, Rules, PRIORITIES};
use crate::world::{Announcing, Flag, World, MAX, NOBODY};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Low,
    Bit,
    Wake,
}

const PHASES: usize = 3;

fn order(rules: &Rules) -> [Phase; PHASES] {
    match rules.fault {
        Fault::BitBeforeLow => [Phase::Bit, Phase::Low, Phase::Wake],
        Fault::WakeBeforeWrite => [Phase::Wake, Phase::Low, Phase::Bit],
        _ => [Phase::Low, Phase::Bit, Phase::Wake],
    }
}

impl Announcing {
    pub fn rest() -> Announcing {
        Announcing {
            owed: [MAX; PRIORITIES],
            phase: PHASES as u8,
            executor: 0,
            chosen: false,
        }
    }

    pub fn is_under_way(&self) -> bool {
        usize::from(self.phase) < PHASES
    }

    /// Goes past phases that have nothing to do.
    fn settle(&mut self, rules: &Rules) {
        let no_low = self.owed == [MAX; PRIORITIES];
        while self.is_under_way() && no_low && order(rules)[usize::from(self.phase)] == Phase::Low {
            self.phase += 1;
        }
        if !self.is_under_way() {
            *self = Announcing::rest();
        }
    }
}

impl World {
    /// Lets `process` announce a position of each priority (`MAX` for none): its next steps are these. With
    /// no position at all it sets the bit and wakes.
    pub fn announce(&mut self, rules: &Rules, process: usize, owed: [u8; PRIORITIES]) {
        let announcing = &mut self.processes[process].announcing;
        *announcing = Announcing {
            owed,
            phase: 0,
            ..Announcing::rest()
        };
        announcing.settle(rules);
    }

    /// The same for one position.
    pub fn announce_one(&mut self, rules: &Rules, process: usize, priority: usize, position: u8) {
        let mut owed = [MAX; PRIORITIES];
        owed[priority] = position;
        self.announce(rules, process, owed);
    }

    pub fn step_announce(
        &self,
        rules: &Rules,
        process: usize,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        let mut next = *self;
        let announcing = &mut next.processes[process].announcing;
        let (text, number) = match order(rules)[usize::from(announcing.phase)] {
            Phase::Low => {
                let owed = announcing.owed.iter().position(|owed| *owed != MAX);
                let priority = owed.expect("settle leaves this phase when nothing is owed");
                let position = std::mem::replace(&mut announcing.owed[priority], MAX);
                next.low[priority] = next.low[priority].min(position);
                ("announce: fetch_min(low, p), p =", position)
            }
            Phase::Bit => {
                announcing.phase += 1;
                next.bit = true;
                ("announce: sets the bit", NOBODY)
            }
            Phase::Wake => next.wake(rules, process),
        };
        next.processes[process].announcing.settle(rules);
        visit(text, number, next);
    }

    fn wake(&mut self, rules: &Rules, process: usize) -> (&'static str, u8) {
        let announcing = &mut self.processes[process].announcing;
        let executor = announcing.executor;
        if usize::from(executor) == rules.executors {
            announcing.phase += 1;
            self.wanted = true;
            return ("announce: nobody is idle, asks for an executor", NOBODY);
        }
        let slot = &mut self.slots[usize::from(executor)];
        if announcing.chosen {
            announcing.phase += 1;
            announcing.chosen = false;
            slot.latch = true;
            return ("announce: sets the latch of executor", executor);
        }
        if slot.flag == Flag::Idle {
            slot.flag = Flag::Woken;
            announcing.chosen = true;
            return ("announce: CAS idle -> woken, executor", executor);
        }
        announcing.executor += 1;
        // Asking makes a difference only where executors exit.
        if usize::from(announcing.executor) == rules.executors && rules.budget.exits == 0 {
            announcing.phase += 1;
        }
        ("announce: finds busy executor", executor)
    }
}
