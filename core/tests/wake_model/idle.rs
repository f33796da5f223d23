//! idle: say so, look once more, then sleep; exit: say so, look once more; and how one is started.

use crate::claim::{At, Executor};
use crate::rules::{Fault, Rules, PROCESSES};
use crate::world::{Flag, Role, Step, World, NOBODY};

impl Executor {
    /// The first step towards sleep.
    pub fn idle(rules: &Rules) -> Executor {
        Executor::at(if rules.breaks(Fault::IdleAfterLook) {
            At::Recheck
        } else {
            At::Publish
        })
    }
}

impl World {
    pub fn step_idle(
        &self,
        rules: &Rules,
        process: usize,
        executor: &Executor,
        visit: &mut impl FnMut(&'static str, u8, World),
    ) {
        let late = rules.breaks(Fault::IdleAfterLook);
        let sleep = if rules.breaks(Fault::ResetBeforeSleep) {
            At::Reset
        } else {
            At::Sleep
        };
        let mut go = |text, at, flag, latch| {
            let mut next = *self;
            next.slots[process].flag = flag;
            next.slots[process].latch = latch;
            next.processes[process].role = Role::Executor(Executor::at(at));
            visit(text, NOBODY, next);
        };
        let (flag, latch) = (self.slots[process].flag, self.slots[process].latch);
        match executor.at {
            At::Publish => {
                let at = if late { sleep } else { At::Recheck };
                go("idle: writes its flag, idle", at, Flag::Idle, latch);
            }
            At::Recheck if self.bit => {
                let at = if late { At::Look } else { At::Retract };
                go("idle: looks again, the bit is set", at, flag, latch);
            }
            At::Recheck => {
                let at = if late { At::Publish } else { sleep };
                go("idle: looks again, the bit is clear", at, flag, latch);
            }
            At::Retract => go("idle: writes its flag, busy", At::Look, Flag::Busy, latch),
            At::Reset => go("idle: resets its latch", At::Sleep, flag, false),
            At::Sleep => {
                if latch {
                    let keeps = rules.breaks(Fault::ResetBeforeSleep);
                    go("idle: wakes, resets its latch", At::Retract, flag, keeps);
                }
                if self.budget.exits > 0 {
                    let mut next = *self;
                    next.budget.exits -= 1;
                    next.processes[process].role = Role::Executor(Executor::at(At::Exit));
                    visit("has lingered, or is terminated", NOBODY, next);
                }
            }
            At::Exit => {
                let at = if rules.breaks(Fault::BlindExit) {
                    At::Gone
                } else {
                    At::LastLook
                };
                go("exit: writes its flag, gone", at, Flag::Gone, false);
            }
            At::LastLook => {
                let mut next = *self;
                next.wanted |= self.bit;
                next.processes[process].role = Role::Executor(Executor::at(At::Gone));
                let text = if self.bit {
                    "exit: the bit is set, asks for an executor"
                } else {
                    "exit: the bit is clear"
                };
                visit(text, NOBODY, next);
            }
            _ => (),
        }
    }

    /// The scheduler hears that somebody found nobody idle, and starts an executor if one is gone.
    pub fn step_scheduler(&self, visit: &mut impl FnMut(Step, World)) {
        if !self.wanted {
            return;
        }
        let mut next = *self;
        next.wanted = false;
        let gone = self.slots.iter().position(|slot| slot.flag == Flag::Gone);
        if let Some(executor) = gone {
            next.slots[executor].flag = Flag::Busy;
            next.processes[executor].role = Role::Executor(Executor::new());
        }
        let step = Step {
            process: PROCESSES,
            text: "starts executor",
            number: gone.map_or(NOBODY, |executor| executor as u8),
        };
        visit(step, next);
    }
}
