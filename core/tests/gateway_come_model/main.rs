//! Every interleaving of two transactions that change who may read, or which keys count, of a gateway that comes, keeps what it is
//! answered and asks again when it is told to, and of a crash (src/queue/gateway_event.rs, gateway/src/hub/pump.rs). And of broken variants,
//! each of which must be caught.
//!
//! ```text
//! changer     changes something, and looks whether a gateway has come: then it publishes that. It commits. Behind that, if it has published
//!             nothing, it looks once more: has one come, the scheduler is to publish that all may have changed. If it is prepared
//!             instead, and has published nothing, it publishes that all may have changed, because nobody looks behind COMMIT PREPARED.
//! gateway     takes its place in the log when it comes for the first time. Asks: says in shared memory that it has come, then the answer
//!             is looked up. When an event comes behind its place it asks again. When it was away it asks again.
//! relay       puts what has committed into a tick, which the gateway sees.
//! scheduler   publishes what it is asked to.
//! crash       what is in shared memory is gone, and the gateway is away.
//! ```
//!
//! Steps are single reads and writes of shared memory, in one order that all processes see, commits, and snapshots. Checked of every
//! world in which nothing more happens: what the gateway keeps is so. And of every world: where no gateway has come since the server was started
//! nothing was published but by what is prepared.

#[path = "../common/mod.rs"]
mod common;

const CHANGERS: usize = 2;
/// The place of the scheduler's event among those of the changers.
const AGAIN: usize = CHANGERS;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A changer looks once more before it commits.
    LooksBeforeCommit,
    /// It does not look once more.
    LooksOnce,
    /// What is prepared publishes nothing.
    PreparesInSilence,
    /// The answer is looked up before it is said that a gateway has come.
    AnswersFirst,
    /// A gateway that was away believes what it has kept.
    KeepsAnswer,
    /// One that comes takes its place in the log behind its first answer.
    OpensLate,
    /// The scheduler is asked for nothing.
    SchedulerSleeps,
    /// Everybody publishes.
    PublishesAlways,
}

const FAULTS: [Fault; 8] = [
    Fault::LooksBeforeCommit,
    Fault::LooksOnce,
    Fault::PreparesInSilence,
    Fault::AnswersFirst,
    Fault::KeepsAnswer,
    Fault::OpensLate,
    Fault::SchedulerSleeps,
    Fault::PublishesAlways,
];

type Rules = Option<Fault>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Changer {
    Idle,
    /// Whether it has published what it changes.
    Open(bool),
    /// It has looked once more (a fault).
    Looked,
    Prepared,
    /// Everybody sees it; it has published nothing.
    Committed,
    Over,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Gateway {
    Away,
    /// It is about to ask.
    Asks,
    /// It has said that it has come.
    Noted,
    /// Was answered before it has said so (a fault).
    Answered,
    Keeps,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    /// What each changer changes, as committed.
    changed: [bool; CHANGERS],
    changers: [Changer; CHANGERS],
    /// A gateway has come.
    has_come: bool,
    is_to_ask_again: bool,
    /// Events that have committed, and are in no tick.
    due: [bool; CHANGERS + 1],
    /// The tick of each; 0: none.
    tick_of: [u8; CHANGERS + 1],
    newest: u8,
    gateway: Gateway,
    /// Its place in the log.
    place: Option<u8>,
    kept: [bool; CHANGERS],
    crashes: u8,
    absences: u8,
    broken: bool,
}

impl World {
    fn new() -> World {
        World {
            changed: [false; CHANGERS],
            changers: [Changer::Idle; CHANGERS],
            has_come: false,
            is_to_ask_again: false,
            due: [false; CHANGERS + 1],
            tick_of: [0; CHANGERS + 1],
            newest: 0,
            gateway: Gateway::Away,
            place: None,
            kept: [false; CHANGERS],
            crashes: 1,
            absences: 1,
            broken: false,
        }
    }

    fn has_more(&self) -> bool {
        self.place
            .is_some_and(|place| self.tick_of.iter().any(|tick| *tick > place))
    }

    fn is_bad(&self) -> bool {
        let is_done = |changer: &Changer| matches!(changer, Changer::Idle | Changer::Over);
        let is_at_rest = self.changers.iter().all(is_done)
            && self.due == [false; CHANGERS + 1]
            && !self.is_to_ask_again
            && self.gateway == Gateway::Keeps
            && !self.has_more();
        self.broken || is_at_rest && self.kept != self.changed
    }

    fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..CHANGERS {
            self.step_changer(rules, me, visit);
        }
        self.step_gateway(rules, visit);
        if self.due != [false; CHANGERS + 1] {
            let mut next = *self;
            next.newest += 1;
            for (tick, due) in next.tick_of.iter_mut().zip(&mut next.due) {
                if std::mem::take(due) {
                    *tick = next.newest;
                }
            }
            visit(next);
        }
        if self.is_to_ask_again {
            let mut next = *self;
            next.is_to_ask_again = false;
            next.due[AGAIN] = rules != Some(Fault::SchedulerSleeps);
            visit(next);
        }
        if self.crashes > 0 {
            let survives = |changer: Changer| match changer {
                Changer::Idle | Changer::Prepared => changer,
                _ => Changer::Over,
            };
            visit(World {
                changers: self.changers.map(survives),
                has_come: false,
                is_to_ask_again: false,
                gateway: Gateway::Away,
                crashes: self.crashes - 1,
                ..*self
            });
        }
    }

    fn step_changer(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        next.changers[me] = match self.changers[me] {
            Changer::Idle => Changer::Open(self.has_come || rules == Some(Fault::PublishesAlways)),
            Changer::Open(true) => {
                // ROLLBACK.
                visit(World {
                    changers: self.with(me, Changer::Over),
                    ..*self
                });
                next.changed[me] = true;
                next.due[me] = true;
                next.broken |= !self.has_come && self.crashes > 0 && self.place.is_none();
                Changer::Over
            }
            Changer::Open(false) => {
                visit(World {
                    changers: self.with(me, Changer::Over),
                    ..*self
                });
                visit(World {
                    changers: self.with(me, Changer::Prepared),
                    ..*self
                });
                if rules == Some(Fault::LooksBeforeCommit) {
                    next.is_to_ask_again |= self.has_come;
                    Changer::Looked
                } else {
                    next.changed[me] = true;
                    Changer::Committed
                }
            }
            Changer::Looked => {
                next.changed[me] = true;
                Changer::Over
            }
            Changer::Prepared => {
                // ROLLBACK PREPARED.
                visit(World {
                    changers: self.with(me, Changer::Over),
                    ..*self
                });
                next.changed[me] = true;
                next.due[me] = rules != Some(Fault::PreparesInSilence);
                Changer::Over
            }
            Changer::Committed => {
                next.is_to_ask_again |= self.has_come && rules != Some(Fault::LooksOnce);
                Changer::Over
            }
            Changer::Over => return,
        };
        visit(next);
    }

    fn with(&self, me: usize, changer: Changer) -> [Changer; CHANGERS] {
        let mut changers = self.changers;
        changers[me] = changer;
        changers
    }

    fn step_gateway(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let opens_late = rules == Some(Fault::OpensLate);
        next.gateway = match self.gateway {
            Gateway::Away if self.place.is_some() && rules == Some(Fault::KeepsAnswer) => {
                next.has_come = true;
                Gateway::Keeps
            }
            Gateway::Away => {
                if !opens_late {
                    next.place = self.place.or(Some(self.newest));
                }
                Gateway::Asks
            }
            Gateway::Asks if rules == Some(Fault::AnswersFirst) => {
                next.kept = self.changed;
                Gateway::Answered
            }
            Gateway::Asks => {
                next.has_come = true;
                Gateway::Noted
            }
            Gateway::Answered => {
                next.has_come = true;
                Gateway::Keeps
            }
            Gateway::Noted => {
                next.kept = self.changed;
                Gateway::Keeps
            }
            Gateway::Keeps if self.place.is_none() => {
                next.place = Some(self.newest);
                Gateway::Keeps
            }
            Gateway::Keeps => {
                // It loses its session alone.
                if self.absences > 0 {
                    visit(World {
                        gateway: Gateway::Away,
                        absences: self.absences - 1,
                        ..*self
                    });
                }
                if !self.has_more() {
                    return;
                }
                next.place = Some(self.newest);
                Gateway::Asks
            }
        };
        visit(next);
    }
}

fn explore(rules: Rules) -> (usize, bool) {
    common::explore(World::new(), World::is_bad, |world, mut visit| {
        world.successors(rules, &mut visit);
    })
}

#[test]
fn what_a_gateway_keeps_is_so() {
    common::assert_holds(&[()], |()| explore(None));
}

#[test]
fn each_broken_variant_leaves_it_with_what_is_not_so_or_tells_nobody() {
    common::assert_caught(&FAULTS, &[()], |(), fault| explore(Some(fault)).1);
}
