//! executor: claims, holds, runs, settles; or ends.

use crate::world::{Cancel, Executor, State, World, MOST_CLAIMS, NOBODY, NO_TOKEN};
use crate::{Fault, Rules};

impl World {
    pub fn step_executor(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let number = me as u8;
        let is = |fault: Fault| rules == Some(fault);
        let mut next = *self;
        let mut go = |executor: Executor, change: &dyn Fn(&mut World)| {
            next = *self;
            next.executors[me] = executor;
            change(&mut next);
            visit(next);
        };
        let nothing = |_: &mut World| ();
        let now = self.executors[me];
        match now {
            Executor::Idle => {
                if self.has_permit_free() && (self.announced || self.lost != self.recovered) {
                    go(Executor::Permitted, &|world| world.permits[me] = true);
                }
            }
            Executor::Permitted => {
                // The recoverers stand for its own look, too.
                if self.lost == self.recovered || is(Fault::ClaimsBehind) {
                    go(Executor::Looked, &nothing);
                } else {
                    go(Executor::Idle, &|world| world.permits[me] = false);
                }
            }
            Executor::Looked => {
                // A job behind this one would start here.
                let is_behind = self.limit == 1 && self.is_lost(rules);
                if self.announced {
                    go(Executor::Came, &|world| {
                        world.announced = false;
                        world.broken |= is_behind;
                    });
                } else {
                    go(Executor::Idle, &|world| {
                        world.permits[me] = false;
                        world.broken |= is_behind;
                    });
                }
            }
            Executor::Came => {
                if self.next_token > MOST_CLAIMS {
                    // As far as this is looked at.
                } else if self.locked_by != NOBODY || self.state != State::Ready {
                    // Who holds the row announces it.
                    go(Executor::Idle, &|world| world.permits[me] = false);
                } else if self.verdict && !is(Fault::RunsUnsettled) || self.cancel != Cancel::None {
                    go(Executor::Idle, &|world| {
                        world.permits[me] = false;
                        world.announced = true;
                    });
                } else {
                    go(Executor::Claimed, &|world| {
                        world.locked_by = number;
                        world.batch[me] = true;
                        world.accepted[me] = false;
                        if !is(Fault::PublishesLate) {
                            world.hold[me] = world.next_token;
                        }
                    });
                }
            }
            Executor::Claimed => {
                let token = self.next_token;
                go(Executor::Holds { token }, &|world| {
                    world.locked_by = NOBODY;
                    world.state = State::Held;
                    world.token = token;
                    world.next_token += 1;
                });
            }
            Executor::Holds { token } => {
                let publish = |world: &mut World| world.hold[me] = token;
                // As it begins it publishes that, then reads the requests.
                if self.cancel == Cancel::None {
                    go(Executor::Runs { token }, &|world| {
                        publish(world);
                        world.broken |= world.verdict;
                    });
                } else {
                    go(Executor::Ran { token }, &publish);
                }
            }
            Executor::Runs { token } => {
                go(Executor::Ran { token }, &|world| {
                    if is(Fault::ClearsEarly) {
                        world.hold[me] = NO_TOKEN;
                    }
                });
            }
            Executor::Ran { token } if is(Fault::AsksEarly) => {
                let cancelled = self.cancel != Cancel::None;
                go(Executor::Asked { token, cancelled }, &nothing);
            }
            Executor::Ran { token } | Executor::Asked { token, .. } => {
                let cancelled = match now {
                    Executor::Asked { cancelled, .. } => Some(cancelled),
                    _ => None,
                };
                if self.locked_by != NOBODY {
                    // Gives up, after a while.
                    if self.busy > 0 {
                        go(Executor::Leaves { is_ended: false }, &|world| {
                            world.busy -= 1
                        });
                    }
                } else if self.state != State::Held
                    || self.token != token && !is(Fault::SettlesBlindly)
                {
                    go(Executor::Settled, &nothing);
                } else {
                    go(Executor::Accepted { token, cancelled }, &|world| {
                        world.locked_by = number;
                        world.accepted[me] = true;
                    });
                }
            }
            Executor::Accepted { token, cancelled } => {
                let asked = match cancelled {
                    Some(cancelled) => cancelled,
                    None if is(Fault::IgnoresCancels) => false,
                    None => self.cancel != Cancel::None,
                };
                go(Executor::Settled, &|world| {
                    world.locked_by = NOBODY;
                    // Another's run would be taken for this one's.
                    world.broken |= world.token != token;
                    world.token = NO_TOKEN;
                    if !asked {
                        world.state = State::Completed;
                        world.broken |= world.is_promised;
                    } else if world.cancel == Cancel::Promised {
                        world.state = State::Cancelled;
                    } else {
                        // It ends as the caller's transaction does.
                        world.state = State::Ready;
                        world.announced = true;
                    }
                });
                // Rolled back, and tried again.
                if self.busy > 0 {
                    go(Executor::Ran { token }, &|world| {
                        world.busy -= 1;
                        world.locked_by = NOBODY;
                    });
                }
            }
            Executor::Settled => {
                go(Executor::Said, &|world| {
                    world.batch[me] = false;
                    world.hold[me] = NO_TOKEN;
                });
            }
            Executor::Leaves { .. } if is(Fault::SaysLostEarly) => {
                go(Executor::Said, &|world| world.lost += 1);
            }
            Executor::Leaves { is_ended } => {
                let silent = if is_ended {
                    is(Fault::EndsSilently)
                } else {
                    is(Fault::GivesUpSilently)
                };
                let after = if silent {
                    Executor::Said
                } else {
                    Executor::Cleared
                };
                go(after, &|world| {
                    world.batch[me] = false;
                    world.hold[me] = NO_TOKEN;
                    if is(Fault::ReturnsPermitEarly) {
                        world.permits[me] = false;
                    }
                });
            }
            Executor::Cleared => {
                go(Executor::Said, &|world| world.lost += 1);
            }
            Executor::Said => {
                go(Executor::Idle, &|world| {
                    world.batch[me] = false;
                    world.hold[me] = NO_TOKEN;
                    world.permits[me] = false;
                    // What its claim has passed over, or a rollback has made free, is looked at again.
                    world.announce_if_ready();
                });
            }
        }
        let may_end = !matches!(
            now,
            Executor::Idle | Executor::Leaves { .. } | Executor::Cleared | Executor::Said
        );
        if self.ends > 0 && may_end {
            let holds = !matches!(
                now,
                Executor::Permitted | Executor::Looked | Executor::Came | Executor::Settled
            );
            let after = if holds {
                Executor::Leaves { is_ended: true }
            } else {
                Executor::Said
            };
            go(after, &|world| {
                world.ends -= 1;
                if world.locked_by == number {
                    world.locked_by = NOBODY;
                }
            });
        }
    }
}
