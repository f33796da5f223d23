//! Who puts back, judges, cancels and retries.

use crate::world::{
    Cancel, Canceller, Recoverer, State, World, CANCELLER, FIRST_RECOVERER, NOBODY, NO_TOKEN,
    OUTSIDE,
};
use crate::{Fault, Rules};

impl World {
    pub fn step_recoverer(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let number = FIRST_RECOVERER + me as u8;
        let is = |fault: Fault| rules == Some(fault);
        let mut go = |recoverer: Recoverer, change: &dyn Fn(&mut World)| {
            let mut next = *self;
            next.recoverers[me] = recoverer;
            change(&mut next);
            visit(next);
        };
        let nothing = |_: &mut World| ();
        match self.recoverers[me] {
            Recoverer::Sleeps => {
                if self.lost != self.recovered {
                    go(Recoverer::Began { lost: self.lost }, &nothing);
                }
            }
            Recoverer::Began { lost } => {
                if self.is_lost(rules) {
                    go(Recoverer::Found { lost }, &nothing);
                } else {
                    go(Recoverer::Done { lost }, &nothing);
                }
            }
            Recoverer::Found { lost } => {
                if self.locked_by == NOBODY {
                    go(Recoverer::Locked { lost }, &|world| {
                        world.locked_by = number
                    });
                } else {
                    // Comes back.
                    go(Recoverer::Sleeps, &nothing);
                }
            }
            Recoverer::Locked { lost } => {
                let is_lost = self.is_lost(rules)
                    || is(Fault::RecoversBlindly)
                        && self.state == State::Held
                        && self.token != OUTSIDE;
                if is_lost {
                    go(Recoverer::PutBack { lost }, &|world| {
                        world.broken |= world.has_live_holder();
                        world.locked_by = NOBODY;
                        world.state = State::Ready;
                        world.token = NO_TOKEN;
                    });
                } else {
                    go(Recoverer::Done { lost }, &|world| {
                        world.locked_by = NOBODY;
                        world.announce_if_ready();
                    });
                }
            }
            Recoverer::PutBack { lost } => {
                go(Recoverer::Done { lost }, &|world| {
                    world.announced |= !is(Fault::PutsBackSilently)
                });
            }
            Recoverer::Done { lost } => {
                let lost = if is(Fault::ReadsLate) {
                    self.lost
                } else {
                    lost
                };
                go(Recoverer::Sleeps, &|world| {
                    world.recovered = world.recovered.max(lost)
                });
            }
        }
    }

    pub fn step_canceller(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut go = |canceller: Canceller, change: &dyn Fn(&mut World)| {
            let mut next = *self;
            next.canceller = canceller;
            change(&mut next);
            visit(next);
        };
        let is_undecided = (0..self.batch.len()).any(|at| self.batch[at] && !self.accepted[at]);
        match self.canceller {
            Canceller::Idle => go(Canceller::Asked, &|world| world.cancel = Cancel::Open),
            Canceller::Asked if is_undecided => go(Canceller::Promises, &|_| ()),
            Canceller::Asked => go(Canceller::Waits, &|world| world.cancel = Cancel::None),
            Canceller::Promises => {
                let unlock = |world: &mut World| {
                    if world.locked_by == CANCELLER {
                        world.locked_by = NOBODY;
                    }
                };
                go(Canceller::Done, &|world| {
                    unlock(world);
                    world.cancel = Cancel::Promised;
                    world.is_promised = true;
                    world.broken |= world.state == State::Completed;
                });
                // Rolled back: then the job runs as if nothing were.
                go(Canceller::Done, &|world| {
                    unlock(world);
                    world.cancel = Cancel::None;
                    world.announce_if_ready();
                });
            }
            Canceller::Waits => {
                if self.locked_by == NOBODY {
                    go(Canceller::Locked, &|world| world.locked_by = CANCELLER);
                }
            }
            Canceller::Locked
                if is_undecided
                    && self.state == State::Held
                    && rules != Some(Fault::CancelsBlindly) =>
            {
                // Somebody has claimed it meanwhile, who cannot accept an outcome as long as the row is locked.
                go(Canceller::Promises, &|world| world.cancel = Cancel::Open)
            }
            Canceller::Locked => go(Canceller::Done, &|world| {
                world.locked_by = NOBODY;
                if matches!(world.state, State::Ready | State::Held) {
                    world.state = State::Cancelled;
                    world.token = NO_TOKEN;
                }
            }),
            Canceller::Done => {}
        }
    }

    /// The scheduler carries out verdicts and promises; somebody makes a cancelled job run again.
    pub fn step_others(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        if self.locked_by != NOBODY {
            return;
        }
        if self.verdict && self.state == State::Ready {
            let mut next = *self;
            next.verdict = false;
            next.charged += 1;
            next.announced = true;
            visit(next);
        }
        if self.verdict && self.state == State::Held && self.token == OUTSIDE {
            let mut next = *self;
            next.verdict = false;
            if rules == Some(Fault::JudgesBlindly) {
                // The lease stays.
                next.charged += 1;
                next.state = State::Ready;
                next.announced = true;
            } else {
                next.crashed_in -= 1;
            }
            visit(next);
        }
        if self.moves > 0 && self.state == State::Ready && self.cancel == Cancel::None {
            let mut next = *self;
            next.moves -= 1;
            next.state = State::Held;
            next.announced = false;
            // Two leases of one job.
            next.broken |= self.token == OUTSIDE;
            next.token = OUTSIDE;
            visit(next);
        }
        if self.token == OUTSIDE {
            let mut next = *self;
            // It holds the job, so its word counts.
            next.broken |= self.state != State::Held;
            next.state = State::Completed;
            next.token = NO_TOKEN;
            visit(next);
        }
        if self.cancel == Cancel::Promised && !self.batch.contains(&true) {
            let mut next = *self;
            if matches!(next.state, State::Ready | State::Held) {
                next.state = State::Cancelled;
                next.token = NO_TOKEN;
            }
            next.cancel = Cancel::None;
            next.is_promised = false;
            visit(next);
        }
        if self.retries > 0 && self.state == State::Cancelled {
            let mut next = *self;
            next.retries -= 1;
            next.state = State::Ready;
            next.announced = true;
            next.cancel = Cancel::None;
            next.is_promised = false;
            visit(next);
        }
    }
}
