//! Every interleaving of executors that take turns at a queue whose jobs run one after another (`concurrency => 1`), and give some
//! of them back (src/job/stored/position.rs, src/job/moves/give_back.rs, src/worker/run/run_batch.rs), and of broken variants, each of which must
//! be caught.
//!
//! ```text
//! executor    takes the queue's permit. Takes the watermark, which is then 'nothing'. Claims from there on: locks rows in the order
//!             of their positions, passing over those that are locked; where it has as many as it wanted it announces what
//!             comes behind. Runs one after the other; one that it gives back is the last that it runs. Ends its transaction: commits
//!             those it ran, and announces those that it did not, each at its old position; or rolls back, and announces what it had
//!             taken. Then it returns the permit.
//! enqueuer    commits a job that drew its position before the others, and announces it.
//! ```
//!
//! Checked of every world: no job runs before one that was enqueued earlier, had been committed when the watermark was taken, and
//! is not done. And of every world in which nothing more happens: no job is left.

#[path = "../common/mod.rs"]
mod common;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A job that is given back draws a new position.
    GoesBehind,
    /// The batch goes on behind it.
    RunsOn,
    /// The permit is returned before the transaction has ended.
    ReturnsPermitEarly,
    /// Jobs that were claimed and not run are not announced.
    ForgetsUnrun,
    /// Nor is what a transaction had taken that is rolled back.
    ForgetsTaken,
    /// They are announced at the position behind the last one that ran.
    AnnouncesBehind,
    /// A full claim does not say what comes behind it.
    ForgetsRest,
}

const FAULTS: [Fault; 7] = [
    Fault::GoesBehind,
    Fault::RunsOn,
    Fault::ReturnsPermitEarly,
    Fault::ForgetsUnrun,
    Fault::ForgetsTaken,
    Fault::AnnouncesBehind,
    Fault::ForgetsRest,
];

type Rules = Option<Fault>;

const JOBS: usize = 4;
const EXECUTORS: usize = 2;
const NOTHING: u8 = u8::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    /// Its transaction has not ended.
    Unborn,
    Waits,
    Locked(u8),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Idle,
    TakeLow,
    Claim,
    Run,
    End,
    ReturnPermit,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Executor {
    at: At,
    /// The watermark that it took.
    from: u8,
    /// Jobs that it has claimed, that it has run, and that it gives back: a bit each.
    claimed: u8,
    ran: u8,
    given_back: u8,
    /// Jobs that were committed and not done when it took the watermark.
    seen: u8,
}

const IDLE: Executor = Executor {
    at: At::Idle,
    from: NOTHING,
    claimed: 0,
    ran: 0,
    given_back: 0,
    seen: 0,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    rows: [Row; JOBS],
    /// In the order of jobs, but for a broken variant.
    positions: [u8; JOBS],
    low: u8,
    has_permit: bool,
    executors: [Executor; EXECUTORS],
    /// A job ran before its turn.
    is_overtaken: bool,
    /// Jobs that may be given back yet, and transactions that may be rolled back.
    gives_back: u8,
    fails: u8,
}

fn has(jobs: u8, job: usize) -> bool {
    jobs >> job & 1 == 1
}

impl World {
    fn new(late: bool) -> World {
        let mut rows = [Row::Waits; JOBS];
        if late {
            rows[0] = Row::Unborn;
        }
        World {
            rows,
            positions: [0, 1, 2, 3],
            low: 0,
            has_permit: true,
            executors: [IDLE; EXECUTORS],
            is_overtaken: false,
            gives_back: 3,
            fails: 2,
        }
    }

    fn is_bad(&self) -> bool {
        let is_over = self.executors == [IDLE; EXECUTORS]
            && self.low == NOTHING
            && self.rows.iter().all(|row| *row != Row::Unborn);
        self.is_overtaken || is_over && self.rows.contains(&Row::Waits)
    }

    fn announce(&mut self, position: u8) {
        self.low = self.low.min(position);
    }

    fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        if self.rows[0] == Row::Unborn {
            let mut born = *self;
            born.rows[0] = Row::Waits;
            born.announce(self.positions[0]);
            visit(born);
        }
        for me in 0..EXECUTORS {
            self.step(rules, me, visit);
        }
    }

    fn in_order(&self) -> [usize; JOBS] {
        let mut jobs = [0, 1, 2, 3];
        jobs.sort_by_key(|job| self.positions[*job]);
        jobs
    }

    fn step(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let mine = self.executors[me];
        match mine.at {
            At::Idle => {
                if !self.has_permit || self.low == NOTHING {
                    return;
                }
                next.has_permit = false;
                next.executors[me].at = At::TakeLow;
            }
            At::TakeLow => {
                next.executors[me].from = std::mem::replace(&mut next.low, NOTHING);
                next.executors[me].at = At::Claim;
                for (job, row) in self.rows.iter().enumerate() {
                    if matches!(row, Row::Waits | Row::Locked(_)) {
                        next.executors[me].seen |= 1 << job;
                    }
                }
            }
            At::Claim => {
                for most in 1..=3 {
                    visit(self.claim(rules, me, most));
                }
                return;
            }
            At::Run => {
                let mut left = self
                    .in_order()
                    .into_iter()
                    .filter(|job| has(mine.claimed & !mine.ran & !mine.given_back, *job));
                let Some(job) = left.next() else {
                    next.executors[me].at = At::End;
                    return visit(next);
                };
                if self.gives_back > 0 {
                    let mut given = *self;
                    given.gives_back -= 1;
                    given.executors[me].given_back |= 1 << job;
                    if rules != Some(Fault::RunsOn) {
                        given.executors[me].at = At::End;
                    }
                    visit(given);
                }
                let before = (1 << job) - 1;
                next.is_overtaken |= mine.seen & before & !mine.ran != 0;
                next.executors[me].ran |= 1 << job;
            }
            At::End => {
                if rules == Some(Fault::ReturnsPermitEarly) {
                    next.has_permit = true;
                }
                if self.fails > 0 {
                    let mut failed = next;
                    failed.fails -= 1;
                    failed.roll_back(rules, me);
                    visit(failed);
                }
                next.commit(rules, me);
                if rules == Some(Fault::ReturnsPermitEarly) {
                    // And the end itself comes later.
                    let mut early = *self;
                    if !self.has_permit {
                        early.has_permit = true;
                        visit(early);
                    }
                }
            }
            At::ReturnPermit => {
                next.has_permit = true;
                next.executors[me] = IDLE;
            }
        }
        visit(next);
    }

    fn claim(&self, rules: Rules, me: usize, most: usize) -> World {
        let mut next = *self;
        let mine = &mut next.executors[me];
        let mut last = NOTHING;
        for job in self.in_order() {
            let is_free = self.rows[job] == Row::Waits && self.positions[job] >= mine.from;
            if is_free && (mine.claimed.count_ones() as usize) < most {
                mine.claimed |= 1 << job;
                next.rows[job] = Row::Locked(me as u8);
                last = self.positions[job];
            }
        }
        let is_full = mine.claimed.count_ones() as usize == most;
        mine.at = At::Run;
        if is_full && rules != Some(Fault::ForgetsRest) {
            next.announce(last + 1);
        }
        next
    }

    fn commit(&mut self, rules: Rules, me: usize) {
        let mine = self.executors[me];
        for job in (0..JOBS).filter(|job| has(mine.claimed, *job)) {
            if has(mine.ran, job) {
                self.rows[job] = Row::Done;
                continue;
            }
            self.rows[job] = Row::Waits;
            if has(mine.given_back, job) && rules == Some(Fault::GoesBehind) {
                self.positions[job] = self.positions.iter().max().map_or(0, |last| last + 1);
            }
            match rules {
                Some(Fault::ForgetsUnrun) => {}
                Some(Fault::AnnouncesBehind) => self.announce(self.positions[job] + 1),
                _ => self.announce(self.positions[job]),
            }
        }
        self.leave(rules, me);
    }

    fn roll_back(&mut self, rules: Rules, me: usize) {
        for row in &mut self.rows {
            if *row == Row::Locked(me as u8) {
                *row = Row::Waits;
            }
        }
        if rules != Some(Fault::ForgetsTaken) {
            self.announce(self.executors[me].from);
        }
        self.leave(rules, me);
    }

    fn leave(&mut self, rules: Rules, me: usize) {
        self.executors[me] = if rules == Some(Fault::ReturnsPermitEarly) {
            IDLE
        } else {
            Executor {
                at: At::ReturnPermit,
                ..IDLE
            }
        };
    }
}

/// Whether the first job is committed after the others.
const LATE: [bool; 2] = [false, true];

fn explore(late: bool, rules: Rules) -> (usize, bool) {
    common::explore(World::new(late), World::is_bad, |world, mut visit| {
        world.successors(rules, &mut visit);
    })
}

#[test]
fn a_job_that_is_given_back_keeps_its_place() {
    common::assert_holds(&LATE, |late| explore(late, None));
}

#[test]
fn each_broken_variant_overtakes_a_job_or_forgets_it() {
    common::assert_caught(&FAULTS, &LATE, |late, fault| explore(late, Some(fault)).1);
}
