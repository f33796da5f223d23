//! The job, its executors and those who look after it, at one moment.

use crate::{Case, Fault, Rules};

pub const EXECUTORS: usize = 2;
pub const RECOVERERS: usize = 2;
pub const NOBODY: u8 = u8::MAX;
pub const CANCELLER: u8 = 10;
/// Looked at, not a limit.
pub const MOST_CLAIMS: u8 = 5;
pub const FIRST_RECOVERER: u8 = 20;
pub const NO_TOKEN: u8 = 0;
/// Of a worker outside.
pub const OUTSIDE: u8 = 99;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    Ready,
    Held,
    Completed,
    Cancelled,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Executor {
    Idle,
    /// Has the permit.
    Permitted,
    /// Has looked for what was lost.
    Looked,
    /// Has taken the announcement.
    Came,
    /// Has locked the row, and published its batch.
    Claimed,
    /// Holds the job.
    Holds {
        token: u8,
    },
    Runs {
        token: u8,
    },
    Ran {
        token: u8,
    },
    /// Has read the requests for cancels, and not accepted the outcome (a fault).
    Asked {
        token: u8,
        cancelled: bool,
    },
    /// Has locked the row and accepted the outcome.
    Accepted {
        token: u8,
        cancelled: Option<bool>,
    },
    /// What came of it is committed, or there was nothing to write.
    Settled,
    /// Lets go without a word.
    Leaves {
        is_ended: bool,
    },
    /// Has cleared its batch.
    Cleared,
    /// Has said that a lease may be lost, or had none.
    Said,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Recoverer {
    Sleeps,
    /// Has read how much was lost.
    Began {
        lost: u8,
    },
    /// Has found a lease that is in nobody's batch.
    Found {
        lost: u8,
    },
    Locked {
        lost: u8,
    },
    /// Has committed, and not announced.
    PutBack {
        lost: u8,
    },
    /// Has looked at all.
    Done {
        lost: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cancel {
    None,
    Open,
    Promised,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Canceller {
    Idle,
    Asked,
    /// Has found that the outcome is not accepted.
    Promises,
    /// Has taken the request back.
    Waits,
    Locked,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub state: State,
    pub token: u8,
    pub next_token: u8,
    pub locked_by: u8,
    /// The job is announced to executors.
    pub announced: bool,
    pub executors: [Executor; EXECUTORS],
    /// The job is in the batch of an executor, and its outcome is accepted.
    pub batch: [bool; EXECUTORS],
    pub accepted: [bool; EXECUTORS],
    /// The token of the lease that an executor holds, as all can see.
    pub hold: [u8; EXECUTORS],
    pub permits: [bool; EXECUTORS],
    pub limit: u8,
    pub lost: u8,
    pub recovered: u8,
    pub recoverers: [Recoverer; RECOVERERS],
    pub cancel: Cancel,
    pub canceller: Canceller,
    /// What the caller of the cancel was told is committed.
    pub is_promised: bool,
    /// A verdict on the job waits.
    pub verdict: bool,
    pub charged: u8,
    pub crashed_in: u8,
    pub ends: u8,
    pub busy: u8,
    pub crashes: u8,
    pub retries: u8,
    pub moves: u8,
    pub broken: bool,
}

impl World {
    pub fn new(case: Case) -> World {
        World {
            state: State::Ready,
            token: NO_TOKEN,
            next_token: 1,
            locked_by: NOBODY,
            announced: true,
            executors: [Executor::Idle; EXECUTORS],
            batch: [false; EXECUTORS],
            accepted: [false; EXECUTORS],
            hold: [NO_TOKEN; EXECUTORS],
            permits: [false; EXECUTORS],
            limit: case.limit,
            lost: 1,
            recovered: 0,
            recoverers: [Recoverer::Sleeps; RECOVERERS],
            cancel: Cancel::None,
            canceller: if case.cancels {
                Canceller::Idle
            } else {
                Canceller::Done
            },
            is_promised: false,
            verdict: false,
            charged: 0,
            crashed_in: 0,
            ends: case.ends,
            busy: case.busy,
            crashes: case.crashes,
            retries: u8::from(case.cancels),
            moves: case.moves,
            broken: false,
        }
    }

    pub fn has_permit_free(&self) -> bool {
        let taken = self.permits.iter().filter(|taken| **taken).count();
        taken < usize::from(self.limit)
    }

    /// Whether the executor that holds the job goes on with it.
    pub fn has_live_holder(&self) -> bool {
        self.executors.iter().any(|executor| match executor {
            Executor::Holds { token }
            | Executor::Runs { token }
            | Executor::Ran { token }
            | Executor::Asked { token, .. } => *token == self.token,
            _ => false,
        })
    }

    /// Whether an executor holds the job that nobody has any more.
    pub fn is_lost(&self, rules: Rules) -> bool {
        self.state == State::Held && self.token != OUTSIDE && !self.is_held(rules)
    }

    pub fn is_held(&self, rules: Rules) -> bool {
        match rules {
            Some(Fault::HeldByJob) => self.batch.contains(&true),
            _ => self.hold.contains(&self.token),
        }
    }

    /// Whether an executor's procedure runs, or its outcome is on the way.
    fn is_at_work(&self, executor: Executor) -> bool {
        match executor {
            Executor::Runs { .. } => true,
            Executor::Holds { token } => token == self.token && self.state == State::Held,
            _ => false,
        }
    }

    pub fn is_bad(&self) -> bool {
        let at_work = self
            .executors
            .iter()
            .filter(|executor| self.is_at_work(**executor));
        // Told that it is cancelled, and nobody tells the procedure.
        let runs_on = self.state == State::Cancelled
            && self.cancel == Cancel::None
            && self.canceller == Canceller::Done
            && self
                .executors
                .iter()
                .any(|executor| matches!(executor, Executor::Runs { .. }));
        if runs_on || self.broken || at_work.count() > 1 {
            return true;
        }
        let rests = |executor: &Executor| *executor == Executor::Idle;
        let is_at_rest = self.locked_by == NOBODY
            && self.executors.iter().all(rests)
            && self.recoverers == [Recoverer::Sleeps; RECOVERERS]
            && matches!(self.canceller, Canceller::Idle | Canceller::Done)
            && self.lost == self.recovered
            && self.cancel != Cancel::Promised
            && self.token != OUTSIDE
            && !self.verdict;
        if !is_at_rest {
            return false;
        }
        // An executor comes for what is announced; a promise is carried out by whoever looks.
        match self.state {
            State::Ready => !self.announced,
            State::Held => true,
            State::Completed | State::Cancelled => self.charged != self.crashed_in,
        }
    }

    pub fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..EXECUTORS {
            self.step_executor(rules, me, visit);
        }
        for me in 0..RECOVERERS {
            self.step_recoverer(rules, me, visit);
        }
        self.step_canceller(rules, visit);
        self.step_others(rules, visit);
        if self.crashes > 0 {
            visit(self.crash(rules));
        }
    }

    fn crash(&self, rules: Rules) -> World {
        let mut next = *self;
        next.crashes -= 1;
        let ran = |executor: &Executor| matches!(executor, Executor::Runs { .. });
        if self.executors.iter().any(ran) {
            next.verdict = true;
            next.crashed_in += 1;
        }
        next.locked_by = NOBODY;
        next.announced = self.state == State::Ready;
        next.executors = [Executor::Idle; EXECUTORS];
        next.batch = [false; EXECUTORS];
        next.accepted = [false; EXECUTORS];
        next.hold = [NO_TOKEN; EXECUTORS];
        next.permits = [false; EXECUTORS];
        next.lost = 1;
        next.recovered = u8::from(rules == Some(Fault::StartsBlindly));
        next.recoverers = [Recoverer::Sleeps; RECOVERERS];
        next
    }

    pub fn announce_if_ready(&mut self) {
        self.announced |= self.state == State::Ready;
    }
}
