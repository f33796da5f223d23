//! Every interleaving of claims that wait (src/job/lease/enter.rs) and of what becomes of their queue meanwhile: it is paused, its
//! concurrency is another, the privilege is gone, it is given a handler, or loses the one it had. And of broken variants, each of which
//! must be caught.
//!
//! ```text
//! claim     looks at the queue. Takes the lock of its leases, alone where these are limited, else beside others: that may be a
//!           wait. Then the look, which one has at a time: another wait. Looks at the queue again; where it is limited now, and the lock is
//!           not held alone, lets go of both and begins anew. Takes the time. Asks shared memory whether the queue is for workers outside.
//!           Counts leases, and executors that have a permit. Takes the watermark; where there is one, takes a job, and announces
//!           what is left. Lets go of the look. COMMIT, or ROLLBACK, which announces the job; either lets go of the lock.
//! owner     changes the queue: commits, then tells all in shared memory. Whoever gives it a handler takes the lock alone before, and is
//!           refused where something is leased.
//! executor  sees in shared memory that the queue has a handler, takes a permit, looks there once more, runs a job, gives it back.
//! ```
//!
//! Steps are atomic where the server makes them so: a lock, a look at committed rows, a commit, an atomic operation. A lease may end at
//! any time. Checked of every world: nothing is leased of a queue with a handler; who has the look waits for nobody; and of every claim that
//! commits: what was so when its last wait ended was heeded, and its lease begins no sooner; and of every other: it has not found
//! nothing while a job was ready.

#[path = "../common/mod.rs"]
mod common;

const LAST: u8 = 2;
/// How often each claims, and the executor runs.
const TIMES: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A claim believes what it has seen before it waited.
    BelievesFirstLook,
    /// It believes what it has seen between its two waits.
    BelievesSecondLook,
    /// It takes no look.
    LooksBesideOthers,
    /// It takes the look, and then the lock.
    LooksFirst,
    /// It keeps the look while it waits for the lock alone.
    KeepsLook,
    /// It lets go of the look before it has announced what is left.
    LetsGoEarly,
    /// It takes the time before it waits.
    TimesFirst,
    /// It counts leases before it waits.
    CountsFirst,
    /// One of a limited queue takes the lock beside others.
    LimitedBesideOthers,
    /// It finds the queue limited, and goes on beside others.
    StaysBesideOthers,
    /// It takes no lock where nothing is limited.
    UnlimitedWithoutLock,
    /// It counts no executors.
    IgnoresExecutors,
    /// It counts them before it asks whether the queue is for workers outside.
    CountsExecutorsFirst,
    /// It believes the row, of which not all have been told.
    BelievesRow,
    /// A handler is given without the lock.
    GivesWithoutLock,
    /// Leases are counted before the lock is taken.
    GivesAfterOldCount,
    /// And it is let go of before the commit.
    GivesAndLetsGo,
    /// An executor looks, and then takes its permit.
    ExecutorLooksFirst,
}

const FAULTS: [Fault; 18] = [
    Fault::BelievesFirstLook,
    Fault::BelievesSecondLook,
    Fault::LooksBesideOthers,
    Fault::LooksFirst,
    Fault::KeepsLook,
    Fault::LetsGoEarly,
    Fault::TimesFirst,
    Fault::CountsFirst,
    Fault::LimitedBesideOthers,
    Fault::StaysBesideOthers,
    Fault::UnlimitedWithoutLock,
    Fault::IgnoresExecutors,
    Fault::CountsExecutorsFirst,
    Fault::BelievesRow,
    Fault::GivesWithoutLock,
    Fault::GivesAfterOldCount,
    Fault::GivesAndLetsGo,
    Fault::ExecutorLooksFirst,
];

type Rules = Option<Fault>;

/// A queue; its concurrency is 1 or none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Queue {
    handler: bool,
    limited: bool,
    paused: bool,
    granted: bool,
}

const OUTSIDE: Queue = Queue {
    handler: false,
    limited: false,
    paused: false,
    granted: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Change {
    Pause,
    Revoke,
    Limit,
    Unlimit,
    GiveHandler,
    TakeHandler,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    queue: Queue,
    /// One after the other.
    changes: [Option<Change>; 2],
}

const LIMITED: Queue = Queue {
    limited: true,
    ..OUTSIDE
};

const INSIDE: Queue = Queue {
    handler: true,
    ..LIMITED
};

const CASES: [Case; 8] = [
    Case {
        queue: LIMITED,
        changes: [Some(Change::Pause), None],
    },
    Case {
        queue: LIMITED,
        changes: [Some(Change::Revoke), None],
    },
    Case {
        queue: OUTSIDE,
        changes: [Some(Change::Limit), Some(Change::Pause)],
    },
    Case {
        queue: LIMITED,
        changes: [Some(Change::Unlimit), Some(Change::Limit)],
    },
    Case {
        queue: OUTSIDE,
        changes: [Some(Change::GiveHandler), None],
    },
    Case {
        queue: LIMITED,
        changes: [Some(Change::GiveHandler), Some(Change::TakeHandler)],
    },
    Case {
        queue: INSIDE,
        changes: [Some(Change::TakeHandler), None],
    },
    Case {
        queue: INSIDE,
        changes: [Some(Change::TakeHandler), Some(Change::GiveHandler)],
    },
];

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Hold {
    Nothing,
    Shared,
    Alone,
}

/// A claim that has the lock: what was true when it got it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Waited {
    truth: Queue,
    at: u8,
}

/// What it goes by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Known {
    queue: Queue,
    now: u8,
    /// As it counted them before it waited (a fault).
    leases: Option<u8>,
    executors: Option<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    Idle,
    /// Has looked at the queue, and wants the lock.
    Wants(Known),
    /// Has that, and wants the look.
    WantsLook(Known),
    Locked(Known, Waited),
    /// Has looked again, and taken the time.
    Entered(Known, Waited),
    /// Was told that the queue is for workers outside.
    Open(Known, Waited),
    /// Has counted the leases; knows whether there is room.
    Counted(Known, Waited, u8),
    /// Has taken the watermark: whether there was one.
    Cleared(Waited, u8, bool),
    /// Has taken a job, and what is left is to be announced (a fault).
    Owes(Waited, u8),
    /// Is about to commit one lease.
    Takes(Waited, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Idle,
    /// Has the lock; what it has counted before that (a fault).
    Locked(Option<u8>),
    /// Has found nothing leased.
    Gives,
    /// Has committed, and not told all.
    Committed,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Executor {
    Idle,
    /// Has seen the queue, and has its permit, or not yet (a fault).
    Seen,
    Permit,
    Works,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    /// As committed, and whether all have been told that it has a handler.
    queue: Queue,
    told_handler: bool,
    leases: u8,
    /// Jobs that are ready, and whether that is announced.
    jobs: u8,
    announced: bool,
    claims: [Claim; 2],
    locks: [Hold; 3],
    /// Who has the look.
    look: Option<u8>,
    times: [u8; 2],
    owner: Owner,
    changes: u8,
    executor: Executor,
    permits: u8,
    runs: u8,
    broken: bool,
}

const OWNER: usize = 2;

impl World {
    fn new(case: Case) -> World {
        World {
            now: 0,
            queue: case.queue,
            told_handler: case.queue.handler,
            leases: 0,
            jobs: 2,
            announced: true,
            claims: [Claim::Idle; 2],
            locks: [Hold::Nothing; 3],
            look: None,
            times: [TIMES; 2],
            owner: Owner::Idle,
            changes: 0,
            executor: Executor::Idle,
            permits: 0,
            runs: TIMES,
            broken: false,
        }
    }

    fn is_bad(&self) -> bool {
        self.broken || self.leases > 0 && self.queue.handler
    }

    fn may_lock(&self, me: usize, hold: Hold) -> bool {
        let conflicts =
            |other: &Hold| *other == Hold::Alone || *other == Hold::Shared && hold == Hold::Alone;
        let others = self.locks.iter().enumerate().filter(|(who, _)| *who != me);
        hold == Hold::Nothing || !others.into_iter().any(|(_, other)| conflicts(other))
    }

    fn works(&self) -> u8 {
        u8::from(self.executor == Executor::Works)
    }

    fn successors(&self, case: Case, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..2 {
            self.step_claim(rules, me, visit);
        }
        self.step_owner(case, rules, visit);
        self.step_executor(rules, visit);
        if self.now < LAST {
            visit(World {
                now: self.now + 1,
                ..*self
            });
        }
        if self.leases > 0 {
            visit(World {
                leases: self.leases - 1,
                ..*self
            });
        }
    }

    fn step_claim(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let mine = Some(me as u8);
        let end_look = |next: &mut World| {
            next.look = next.look.filter(|_| next.look != mine);
        };
        let leave = |next: &mut World| {
            next.claims[me] = Claim::Idle;
            next.locks[me] = Hold::Nothing;
            end_look(next);
        };
        let may = |queue: Queue| !queue.handler && queue.granted;
        match self.claims[me] {
            Claim::Idle => {
                if self.times[me] == 0 || !may(self.queue) {
                    return;
                }
                next.times[me] -= 1;
                let fault = |fault: Fault, value: u8| (rules == Some(fault)).then_some(value);
                next.claims[me] = Claim::Wants(Known {
                    queue: self.queue,
                    now: self.now,
                    leases: fault(Fault::CountsFirst, self.leases),
                    executors: fault(Fault::CountsExecutorsFirst, self.permits),
                });
            }
            Claim::Wants(known) => {
                let hold = match (known.queue.limited, rules) {
                    (true, Some(Fault::LimitedBesideOthers)) => Hold::Shared,
                    (true, _) => Hold::Alone,
                    (false, Some(Fault::UnlimitedWithoutLock)) => Hold::Nothing,
                    (false, _) => Hold::Shared,
                };
                let looks_first = rules == Some(Fault::LooksFirst) && self.look != mine;
                if looks_first {
                    if self.look.is_some() {
                        return;
                    }
                    next.look = mine;
                    visit(next);
                    return;
                }
                if !self.may_lock(me, hold) {
                    if self.look == mine {
                        next.broken = true;
                        visit(next);
                    }
                    return;
                }
                next.locks[me] = hold;
                next.claims[me] = Claim::WantsLook(match rules {
                    Some(Fault::BelievesSecondLook) => Known {
                        queue: self.queue,
                        ..known
                    },
                    _ => known,
                });
            }
            Claim::WantsLook(known) => {
                if rules != Some(Fault::LooksBesideOthers) {
                    if self.look.is_some() && self.look != mine {
                        return;
                    }
                    next.look = mine;
                }
                let waited = Waited {
                    truth: self.queue,
                    at: self.now,
                };
                next.claims[me] = Claim::Locked(known, waited);
            }
            Claim::Locked(known, mut waited) => {
                // Whichever it is of two in its wait and after.
                waited.truth.limited &= self.queue.limited;
                let queue = match rules {
                    Some(Fault::BelievesFirstLook | Fault::BelievesSecondLook) => known.queue,
                    _ => self.queue,
                };
                let now = match rules {
                    Some(Fault::TimesFirst) => known.now,
                    _ => self.now,
                };
                let again = Known {
                    queue,
                    now,
                    ..known
                };
                let stays = matches!(
                    rules,
                    Some(Fault::StaysBesideOthers | Fault::LimitedBesideOthers)
                );
                if !may(queue) {
                    leave(&mut next);
                } else if queue.limited && self.locks[me] != Hold::Alone && !stays {
                    next.locks[me] = Hold::Nothing;
                    if rules != Some(Fault::KeepsLook) {
                        end_look(&mut next);
                    }
                    next.claims[me] = Claim::Wants(again);
                } else {
                    next.claims[me] = Claim::Entered(again, waited);
                }
            }
            Claim::Entered(known, waited) => {
                let is_outside = !self.told_handler || rules == Some(Fault::BelievesRow);
                if !is_outside || known.queue.paused {
                    leave(&mut next);
                } else {
                    next.claims[me] = Claim::Open(known, waited);
                }
            }
            Claim::Open(known, waited) => {
                let leases = known.leases.unwrap_or(self.leases);
                next.claims[me] = Claim::Counted(known, waited, leases);
            }
            Claim::Counted(known, waited, leases) => {
                let executors = match rules {
                    Some(Fault::IgnoresExecutors) => 0,
                    _ => known.executors.unwrap_or(self.permits),
                };
                if known.queue.limited && leases + executors > 0 {
                    leave(&mut next);
                } else {
                    // What is announced later, it does not have to find.
                    next.broken |= !self.announced && self.jobs > 0;
                    next.announced = false;
                    next.claims[me] = Claim::Cleared(waited, known.now, self.announced);
                }
            }
            Claim::Cleared(_, _, false) => leave(&mut next),
            Claim::Cleared(..) if self.jobs == 0 => leave(&mut next),
            Claim::Cleared(waited, now, true) => {
                next.jobs -= 1;
                end_look(&mut next);
                if rules == Some(Fault::LetsGoEarly) {
                    next.claims[me] = Claim::Owes(waited, now);
                } else {
                    next.announced |= next.jobs > 0;
                    next.claims[me] = Claim::Takes(waited, now);
                }
            }
            Claim::Owes(waited, now) => {
                next.announced |= self.jobs > 0;
                next.claims[me] = Claim::Takes(waited, now);
            }
            Claim::Takes(waited, now) => {
                leave(&mut next);
                // ROLLBACK.
                visit(World {
                    jobs: self.jobs + 1,
                    announced: true,
                    ..next
                });
                next.leases += 1;
                let Queue {
                    limited,
                    paused,
                    granted,
                    ..
                } = waited.truth;
                next.broken |= paused || !granted || now < waited.at;
                next.broken |= limited && next.leases + self.works() > 1;
            }
        }
        visit(next);
    }

    fn step_owner(&self, case: Case, rules: Rules, visit: &mut dyn FnMut(World)) {
        let change = case.changes.get(usize::from(self.changes)).copied();
        let Some(change) = change.flatten() else {
            return;
        };
        let mut next = *self;
        let done = |next: &mut World| {
            next.owner = Owner::Idle;
            next.locks[OWNER] = Hold::Nothing;
            next.changes += 1;
        };
        match (self.owner, change) {
            (Owner::Idle, Change::Pause) => {
                next.queue.paused = true;
                done(&mut next);
            }
            (Owner::Idle, Change::Revoke) => {
                next.queue.granted = false;
                done(&mut next);
            }
            (Owner::Idle, Change::Limit | Change::Unlimit) => {
                next.queue.limited = change == Change::Limit;
                done(&mut next);
            }
            (Owner::Idle, Change::TakeHandler) => {
                next.queue.handler = false;
                next.owner = Owner::Committed;
            }
            (Owner::Idle, Change::GiveHandler) => {
                if rules == Some(Fault::GivesWithoutLock) {
                    next.owner = Owner::Locked(None);
                } else if rules == Some(Fault::GivesAfterOldCount) {
                    if self.locks[OWNER] == Hold::Alone {
                        return;
                    }
                    next.owner = Owner::Locked(Some(self.leases));
                } else if self.may_lock(OWNER, Hold::Alone) {
                    next.locks[OWNER] = Hold::Alone;
                    next.owner = Owner::Locked(None);
                } else {
                    return;
                }
            }
            (Owner::Locked(Some(count)), _) => {
                // It takes the lock only now.
                if !self.may_lock(OWNER, Hold::Alone) {
                    return;
                }
                next.locks[OWNER] = Hold::Alone;
                next.owner = Owner::Gives;
                if count > 0 {
                    done(&mut next);
                }
            }
            (Owner::Locked(None), _) => {
                next.owner = Owner::Gives;
                if self.leases > 0 {
                    done(&mut next);
                } else if rules == Some(Fault::GivesAndLetsGo) {
                    next.locks[OWNER] = Hold::Nothing;
                }
            }
            (Owner::Gives, _) => {
                done(&mut next);
                // ROLLBACK.
                visit(next);
                next = *self;
                next.queue.handler = true;
                next.owner = Owner::Committed;
            }
            (Owner::Committed, _) => {
                next.told_handler = self.queue.handler;
                done(&mut next);
            }
        }
        visit(next);
    }

    fn step_executor(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let looks_first = rules == Some(Fault::ExecutorLooksFirst);
        let mut next = *self;
        match self.executor {
            Executor::Idle => {
                if self.runs == 0 || !self.told_handler {
                    return;
                }
                next.runs -= 1;
                next.executor = Executor::Seen;
            }
            Executor::Seen => {
                next.permits += 1;
                next.executor = if looks_first {
                    Executor::Works
                } else {
                    Executor::Permit
                };
            }
            Executor::Permit => {
                if self.told_handler {
                    next.executor = Executor::Works;
                } else {
                    next.permits -= 1;
                    next.executor = Executor::Idle;
                }
            }
            Executor::Works => {
                next.permits -= 1;
                next.executor = Executor::Idle;
            }
        }
        if next.executor == Executor::Works {
            next.broken |= self.queue.limited && self.leases > 0;
        }
        visit(next);
    }
}

fn explore(case: Case, rules: Rules) -> (usize, bool) {
    common::explore(World::new(case), World::is_bad, |world, mut visit| {
        world.successors(case, rules, &mut visit)
    })
}

#[test]
fn a_claim_heeds_what_was_true_when_its_wait_ended() {
    common::assert_holds(&CASES, |case| explore(case, None));
}

#[test]
fn each_broken_variant_leases_what_it_may_not() {
    common::assert_caught(&FAULTS, &CASES, |case, fault| explore(case, Some(fault)).1);
}
