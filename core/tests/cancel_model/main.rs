//! Every interleaving of the protocol by which a job that executors hold is cancelled (src/shared/cancels.rs,
//! src/job/cancel.rs, src/worker/run_batch.rs), and of broken variants, each of which must be caught.
//!
//! ```text
//! canceller   looks how the job stands. Undecided: ask, look again; still undecided: true, and the transaction ends some
//!             time, by commit (the request is a promise) or rollback (it is gone, and the job is announced). Accepted: take
//!             the request back. Then lock the row, waiting for who has it: gone is false, else cancel it oneself: true.
//! executor    claims: lock the row, say that it holds it, undecided. Before the job: asked? committed: to be cancelled;
//!             open: leave it as it is. Run. Say 'accepted', then look: asked? roll the job back, and as before. Record:
//!             completed, or cancelled. Commit: row lock and record at once. Say that nothing is held. Promised meanwhile:
//!             cancel the free row. Left, and not asked for any more: announce it.
//! another     claims it when it is free and announced, and so on.
//! scheduler   cancels the free row of a promise.
//! ```
//!
//! Steps are single reads and writes of shared memory, in one order that all processes see. Checked of every world in which
//! nothing more happens: who was told true and committed has a cancelled job, who was told false a finished one, and no
//! job that is neither is forgotten.

#[path = "../common/mod.rs"]
mod common;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The executor looks for requests before it says that it accepts.
    LooksBeforeAccepting,
    /// It looks for none after the job.
    LooksBeforeOnly,
    /// It minds committed requests only.
    MindsCommittedOnly,
    /// The canceller does not look again after it has asked.
    AsksAndBelieves,
    /// It keeps its request where the job is accepted, and says true.
    IgnoresAccepted,
    /// Its rollback announces before it takes the request back.
    AnnouncesBeforeGivingUp,
    /// The executor does not look after its commit whether what it left is still asked for.
    LeavesForGood,
    /// It does not carry out what was promised while it held the job.
    CarriesOutNothing,
}

const FAULTS: [Fault; 8] = [
    Fault::LooksBeforeAccepting,
    Fault::LooksBeforeOnly,
    Fault::MindsCommittedOnly,
    Fault::AsksAndBelieves,
    Fault::IgnoresAccepted,
    Fault::AnnouncesBeforeGivingUp,
    Fault::LeavesForGood,
    Fault::CarriesOutNothing,
];

type Rules = Option<Fault>;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Request {
    None,
    Open,
    Committed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Standing {
    NotHeld,
    Undecided,
    Accepted,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    Waits,
    Completed,
    Cancelled,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Outcome {
    Complete,
    Cancel,
    Leave,
}

const NOBODY: u8 = 9;
const CANCELLER: u8 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// An executor: at rest.
    Idle,
    SayHeld,
    LookBefore,
    Run,
    Accept,
    LookAfter,
    Commit(Outcome),
    /// The transaction fails at its commit.
    Release(Outcome),
    CarryOut(Outcome),
    Announce(Outcome),
}

/// Where the canceller stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Asking {
    Look,
    Ask,
    LookAgain,
    TakeBack,
    Lock,
    /// It holds the row, and will cancel it.
    Told(bool),
    Announces,
    GivesUp,
    Over(Option<bool>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    row: Row,
    locked_by: u8,
    announced: bool,
    request: Request,
    standing: [Standing; 2],
    executors: [At; 2],
    canceller: Asking,
    /// The scheduler is asked to carry out a promise.
    scheduler: bool,
    /// Commits that fail yet.
    failures: u8,
}

impl World {
    fn new() -> World {
        World {
            row: Row::Waits,
            locked_by: NOBODY,
            announced: true,
            request: Request::None,
            standing: [Standing::NotHeld; 2],
            executors: [At::Idle; 2],
            canceller: Asking::Look,
            scheduler: false,
            failures: 1,
        }
    }

    fn standing(&self) -> Standing {
        let held = self.standing.into_iter().find(|s| *s != Standing::NotHeld);
        held.unwrap_or(Standing::NotHeld)
    }

    fn free_row(&self) -> bool {
        self.row == Row::Waits && self.locked_by == NOBODY
    }

    fn asked(&self, rules: Rules) -> Request {
        match self.request {
            Request::Open if rules == Some(Fault::MindsCommittedOnly) => Request::None,
            request => request,
        }
    }

    fn is_over(&self) -> bool {
        self.executors == [At::Idle; 2] && matches!(self.canceller, Asking::Over(_))
    }

    fn is_bad(&self) -> bool {
        let Asking::Over(told) = self.canceller else {
            return false;
        };
        let is_at_rest = self.is_over() && !(self.announced && self.free_row());
        let is_forgotten = self.row == Row::Waits && !self.scheduler;
        match told {
            // It may still be on its way to that.
            Some(true) => {
                self.row == Row::Completed || is_at_rest && !self.scheduler && is_forgotten
            }
            Some(false) => self.row == Row::Cancelled || is_at_rest && is_forgotten,
            None => self.row == Row::Cancelled || is_at_rest && is_forgotten,
        }
    }

    fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..2 {
            self.step_executor(rules, me, visit);
        }
        self.step_canceller(rules, visit);
        if self.scheduler && self.free_row() {
            visit(World {
                row: Row::Cancelled,
                scheduler: false,
                request: Request::None,
                ..*self
            });
        }
        if self.scheduler && self.row != Row::Waits {
            visit(World {
                scheduler: false,
                request: Request::None,
                ..*self
            });
        }
    }

    fn step_executor(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let early = rules == Some(Fault::LooksBeforeAccepting);
        let by_request = |request, otherwise| match request {
            Request::None => otherwise,
            Request::Open => At::Commit(Outcome::Leave),
            Request::Committed => At::Commit(Outcome::Cancel),
        };
        next.executors[me] = match self.executors[me] {
            At::Idle => {
                if !self.announced {
                    return;
                }
                // Who finds the row locked passes over it.
                next.announced = false;
                if self.free_row() {
                    next.locked_by = me as u8;
                    At::SayHeld
                } else {
                    At::Idle
                }
            }
            At::SayHeld => {
                next.standing[me] = Standing::Undecided;
                At::LookBefore
            }
            At::LookBefore => by_request(self.asked(rules), At::Run),
            At::Run if early => At::LookAfter,
            At::Run => At::Accept,
            At::Accept => {
                next.standing[me] = Standing::Accepted;
                if early || rules == Some(Fault::LooksBeforeOnly) {
                    At::Commit(Outcome::Complete)
                } else {
                    At::LookAfter
                }
            }
            At::LookAfter => {
                let otherwise = if early {
                    At::Accept
                } else {
                    At::Commit(Outcome::Complete)
                };
                by_request(self.asked(rules), otherwise)
            }
            At::Commit(outcome) => {
                if self.failures > 0 {
                    // Rolled back: the watermark is put back.
                    let mut failed = *self;
                    failed.failures -= 1;
                    failed.locked_by = NOBODY;
                    failed.announced = true;
                    failed.executors[me] = At::Release(Outcome::Complete);
                    visit(failed);
                }
                next.locked_by = NOBODY;
                next.row = match outcome {
                    Outcome::Complete => Row::Completed,
                    Outcome::Cancel => Row::Cancelled,
                    Outcome::Leave => Row::Waits,
                };
                At::Release(outcome)
            }
            At::Release(outcome) => {
                next.standing[me] = Standing::NotHeld;
                if rules == Some(Fault::CarriesOutNothing) {
                    At::Announce(outcome)
                } else {
                    At::CarryOut(outcome)
                }
            }
            At::CarryOut(outcome) => {
                if self.request == Request::Committed {
                    if self.free_row() {
                        next.row = Row::Cancelled;
                        next.request = Request::None;
                    } else if self.row == Row::Waits {
                        next.scheduler = true;
                    } else {
                        next.request = Request::None;
                    }
                }
                At::Announce(outcome)
            }
            At::Announce(outcome) => {
                if outcome == Outcome::Leave
                    && self.request == Request::None
                    && rules != Some(Fault::LeavesForGood)
                {
                    next.announced = true;
                }
                At::Idle
            }
        };
        visit(next);
    }

    fn step_canceller(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        next.canceller = match self.canceller {
            Asking::Look => match self.standing() {
                Standing::Undecided => Asking::Ask,
                // It is being claimed: look again in a moment.
                Standing::NotHeld if self.locked_by != NOBODY => return,
                _ => Asking::Lock,
            },
            Asking::Ask => {
                next.request = Request::Open;
                if rules == Some(Fault::AsksAndBelieves) {
                    Asking::Told(true)
                } else {
                    Asking::LookAgain
                }
            }
            Asking::LookAgain => match self.standing() {
                Standing::Undecided => Asking::Told(true),
                Standing::Accepted if rules == Some(Fault::IgnoresAccepted) => Asking::Told(true),
                _ => Asking::TakeBack,
            },
            Asking::TakeBack => {
                next.request = Request::None;
                Asking::Look
            }
            Asking::Lock if self.row != Row::Waits => Asking::Over(Some(false)),
            Asking::Lock if self.locked_by != NOBODY => {
                // It waits, or finds that it is held by another batch now.
                if self.standing() == Standing::Undecided {
                    next.canceller = Asking::Look;
                    visit(next);
                }
                return;
            }
            Asking::Lock => {
                next.locked_by = CANCELLER;
                Asking::Told(true)
            }
            Asking::Told(_) => {
                // Rolled back.
                let mut undone = *self;
                if self.locked_by == CANCELLER {
                    undone.locked_by = NOBODY;
                    undone.canceller = Asking::Announces;
                } else if rules == Some(Fault::AnnouncesBeforeGivingUp) {
                    undone.canceller = Asking::Announces;
                } else {
                    undone.canceller = Asking::GivesUp;
                }
                visit(undone);
                if self.locked_by == CANCELLER {
                    next.locked_by = NOBODY;
                    next.row = Row::Cancelled;
                } else {
                    next.request = Request::Committed;
                    next.scheduler = self.standing() == Standing::NotHeld;
                }
                Asking::Over(Some(true))
            }
            Asking::GivesUp => {
                next.request = Request::None;
                if rules == Some(Fault::AnnouncesBeforeGivingUp) {
                    Asking::Over(None)
                } else {
                    Asking::Announces
                }
            }
            Asking::Announces => {
                next.announced = true;
                if self.request == Request::Open {
                    Asking::GivesUp
                } else {
                    Asking::Over(None)
                }
            }
            Asking::Over(_) => return,
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
fn who_is_told_true_has_a_cancelled_job() {
    common::assert_holds(&[()], |()| explore(None));
}

#[test]
fn each_broken_variant_breaks_its_word_or_forgets_the_job() {
    common::assert_caught(&FAULTS, &[()], |(), fault| explore(Some(fault)).1);
}
