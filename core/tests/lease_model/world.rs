//! The job, its holders and the scheduler, at one moment.

use crate::{Case, Fault, Rules};

pub const WORKERS: usize = 2;
pub const CANCELLER: u8 = WORKERS as u8;
pub const SCHEDULER: u8 = CANCELLER + 1;
pub const NOBODY: u8 = SCHEDULER + 1;
pub const NO_TOKEN: u8 = 0;
pub const LENGTH: u8 = 2;
pub const NEVER: u8 = u8::MAX;
/// The clock stops here.
pub const LAST: u8 = 3;
pub const MAX_ATTEMPTS: u8 = 2;
pub const MAX_GIVE_BACKS: u8 = 1;
/// Looked at, not a limit.
pub const MAX_RELEASES: u8 = 1;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    Ready,
    Leased,
    Completed,
    Discarded,
    Cancelled,
}

/// The job's row as committed.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    pub state: State,
    pub token: u8,
    /// The worker whose name is in the row.
    pub worker: u8,
    pub until: u8,
    /// When that was said.
    pub said_at: u8,
    pub attempts: u8,
    pub give_backs: u8,
    /// In which life of the server it was leased: how many crashes were still to come.
    pub life: u8,
}

/// What a transaction of a worker is about to store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    Complete,
    Fail,
    Release,
    Extend(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Worker {
    Idle,
    /// Has taken the announcement.
    Came,
    /// Has locked the row; `again`: which it holds already under its name.
    Claims {
        again: bool,
        now: u8,
    },
    /// Committed, and has not announced the end of the lease.
    Claimed {
        token: u8,
    },
    /// Has announced it, and not committed (a fault).
    Announced {
        again: bool,
        now: u8,
    },
    Holds {
        token: u8,
    },
    /// Has locked the row, which it may change.
    Changes {
        token: u8,
        change: Change,
    },
    /// Has committed, and has not announced what follows.
    Changed {
        token: u8,
        change: Change,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Canceller {
    Idle,
    Locked {
        was: State,
    },
    /// Rolled back, and has not announced.
    Undone {
        was: State,
    },
    Done,
}

/// How the scheduler knows when to come again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum NextEnd {
    Read,
    /// Something was locked.
    ComeBack,
    /// It was of later than now.
    ComeBackToAll,
    Forgotten,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheduler {
    /// Until `wake_at`, or an announcement that is due.
    Sleeps {
        wake_at: u8,
    },
    /// `all`: is to look at those of later than now, too.
    Woke {
        all: bool,
    },
    /// Has read that there is a lease that is over, or none.
    Read {
        over: bool,
    },
    Locked,
    /// Has committed an expiry, and not announced the job.
    Expired,
    /// Is about to find when the next lease ends.
    Plans(NextEnd),
    /// Has planned to sleep until then, and takes the announcement only now (a fault).
    Takes {
        wake_at: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub now: u8,
    pub row: Row,
    pub locked_by: u8,
    /// The job is announced to workers.
    pub announced: bool,
    /// The first end of a lease that was announced to the scheduler.
    pub ends: u8,
    pub workers: [Worker; WORKERS],
    /// Sessions in shared memory, a bit each, and those that are open.
    pub entered: u8,
    pub open: u8,
    pub canceller: Canceller,
    pub scheduler: Scheduler,
    pub next_token: u8,
    pub claims: u8,
    pub releases: u8,
    pub completions: u8,
    /// A holder was promised its lease until then, by the token of now.
    pub promised: u8,
    pub was_cancelled: bool,
    pub broken: bool,
    pub crashes: u8,
    pub jumps: u8,
    /// The clock was set back, and the launcher has not told the scheduler.
    pub tells: bool,
}

impl World {
    pub fn new(case: Case) -> World {
        World {
            now: 0,
            row: Row {
                state: State::Ready,
                token: NO_TOKEN,
                worker: NOBODY,
                until: NEVER,
                said_at: 0,
                attempts: 0,
                give_backs: 0,
                life: case.crashes,
            },
            locked_by: NOBODY,
            announced: true,
            ends: NEVER,
            workers: [Worker::Idle; WORKERS],
            entered: 0,
            open: (1 << WORKERS) - 1,
            canceller: if case.cancels {
                Canceller::Idle
            } else {
                Canceller::Done
            },
            scheduler: Scheduler::Sleeps { wake_at: NEVER },
            next_token: 1,
            claims: 0,
            releases: 0,
            completions: 0,
            promised: 0,
            was_cancelled: false,
            broken: false,
            crashes: case.crashes,
            jumps: case.jumps,
            tells: false,
        }
    }

    pub fn is_bad(&self, case: Case) -> bool {
        if self.broken
            || self.completions > 1
            || self.claims > MAX_ATTEMPTS + MAX_GIVE_BACKS + self.releases
        {
            return true;
        }
        if self.completions > 0 && (self.was_cancelled || self.row.state != State::Completed) {
            return true;
        }
        let Scheduler::Sleeps { wake_at } = self.scheduler else {
            return false;
        };
        let comes_at = self.ends.min(wake_at);
        let leaves = |me: usize| case.bound && self.open >> me & 1 == 0;
        let rests = |(me, worker): (usize, &Worker)| match worker {
            Worker::Idle => true,
            Worker::Holds { .. } => !leaves(me),
            _ => false,
        };
        let is_at_rest = self.locked_by == NOBODY
            && comes_at > self.now
            && self.workers.iter().enumerate().all(rests)
            && matches!(self.canceller, Canceller::Idle | Canceller::Done);
        if !is_at_rest {
            return false;
        }
        match self.row.state {
            State::Ready => !self.announced,
            State::Leased if case.bound => !self.is_alive(self.row.worker),
            // A clock that jumped back makes the scheduler late, and no more.
            State::Leased if case.jumps > 0 => {
                comes_at == NEVER || !self.tells && self.row.until > self.now + LENGTH
            }
            State::Leased => comes_at > self.row.until.max(self.now),
            _ => false,
        }
    }

    /// Whether the session of a worker that has leased the job goes on, as shared memory says.
    pub fn is_alive(&self, worker: u8) -> bool {
        self.entered >> worker & 1 == 1
    }

    pub fn is_over(&self, case: Case, row: &Row) -> bool {
        row.state == State::Leased
            && if case.bound {
                !self.is_alive(row.worker)
            } else {
                row.until <= self.now
            }
    }

    pub fn name(&self, case: Case, worker: u8) -> u8 {
        if case.same_name {
            0
        } else {
            worker
        }
    }

    pub fn successors(&self, case: Case, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..WORKERS {
            self.step_worker(case, rules, me, visit);
        }
        self.step_canceller(rules, visit);
        self.step_scheduler(case, rules, visit);
        if self.now < LAST {
            visit(World {
                now: self.now + 1,
                ..*self
            });
        }
        for now in (0..self.now).filter(|_| self.jumps > 0) {
            visit(World {
                now,
                jumps: self.jumps - 1,
                promised: 0,
                tells: true,
                ..*self
            });
        }
        if self.tells {
            let mut next = *self;
            next.tells = false;
            let waits = matches!(self.scheduler, Scheduler::Sleeps { wake_at } if wake_at != NEVER);
            let is_told = match rules {
                Some(Fault::JumpsSilently) => false,
                Some(Fault::TellsWhoWaits) => waits || self.ends != NEVER,
                _ => true,
            };
            if is_told {
                next.announce_end(0);
            }
            visit(next);
        }
        if self.crashes > 0 {
            visit(self.crash(rules));
        }
    }

    pub fn crash(&self, rules: Rules) -> World {
        let mut next = *self;
        next.crashes -= 1;
        next.locked_by = NOBODY;
        // What is ready is looked for by the first executor or worker after a start (wake_model).
        next.announced = self.row.state == State::Ready;
        next.ends = NEVER;
        next.entered = 0;
        for worker in &mut next.workers {
            *worker = match *worker {
                Worker::Holds { token } | Worker::Changes { token, .. } => Worker::Holds { token },
                _ => Worker::Idle,
            };
        }
        next.canceller = match self.canceller {
            Canceller::Done => Canceller::Done,
            _ => Canceller::Idle,
        };
        next.scheduler = if rules == Some(Fault::StartsBlindly) {
            Scheduler::Sleeps { wake_at: NEVER }
        } else {
            Scheduler::Woke { all: true }
        };
        next
    }

    pub fn announce_end(&mut self, at: u8) {
        self.ends = self.ends.min(at);
    }
}
