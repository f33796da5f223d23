//! Every interleaving of enqueueing with a unique key and of running its jobs (src/job/unique_key.rs, src/job/moves/claim.rs), and of
//! broken variants, each of which must be caught.
//!
//! ```text
//! writer      changes a row and enqueues its key. Looks which unfinished jobs of the key there are, as of now. From the
//!             newest on: try to lock its row in share mode, passing over one that somebody holds alone; gone: look again.
//!             Locked: that job is the answer. It is deeper than the writer (a longer chain of causes): where nobody else has locked
//!             it too, make it as deep, which is to hold it alone; else pass it over. None: insert one beside the newest that was seen; another beside the same:
//!             wait for its writer if that has not ended, then look again. Commit or roll back: the locks are gone, and what was
//!             locked or inserted is announced.
//! executor    takes an announced job if nobody has locked its row, locks it alone, reads the rows, and completes it, or
//!             gives it up (a failure, a crash, an abort), whereupon it is announced.
//! ```
//!
//! Steps are atomic where the server makes them so: a lock, an insertion into the index, the end of a transaction. Checked
//! of every world in which nothing more happens: each committed change was seen by a completed run of a job that is no deeper,
//! and no job is forgotten. And of every world: of jobs that nobody holds alone two of a depth wait at most and three of all, and one
//! more for each that was given up.

#[path = "../common/mod.rs"]
mod common;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The answer is a job that runs.
    CountsClaimed,
    /// The answer is not locked.
    LocksNothing,
    /// Its lock is gone before the transaction ends.
    UnlocksEarly,
    /// A claim minds only those who hold the row alone.
    ClaimsShared,
    /// The end of who has locked a job announces nothing.
    SilentEnd,
    /// Or only its commit does.
    SilentRollback,
    /// A new job is inserted whatever is beside the same.
    InsertsBlindly,
    /// Who has waited for another's insertion answers that, without a look.
    AnswersConflict,
    /// The answer is a job that is deeper, and stays so.
    AnswersDeeper,
}

const FAULTS: [Fault; 9] = [
    Fault::CountsClaimed,
    Fault::LocksNothing,
    Fault::UnlocksEarly,
    Fault::ClaimsShared,
    Fault::SilentEnd,
    Fault::SilentRollback,
    Fault::InsertsBlindly,
    Fault::AnswersConflict,
    Fault::AnswersDeeper,
];

type Rules = Option<Fault>;

const WRITERS: usize = 3;
const EXECUTORS: usize = 2;
/// One is there at the beginning.
const JOBS: usize = 1 + WRITERS;
const NOBODY: u8 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    Absent,
    /// Inserted by a transaction that has not ended.
    Unborn(u8),
    Waits,
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Job {
    row: Row,
    /// One more than the job that it stands beside; 0: none.
    beside: u8,
    /// The executor that holds it alone.
    held_by: u8,
    /// The writer that holds it alone, because it has made it less deep.
    raised_by: u8,
    is_deep: bool,
    /// The writers that have locked it in share mode, a bit each.
    shared_by: u8,
    announced: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Writing {
    Look,
    /// The jobs that were seen, a bit each, and those still to be tried.
    Lock {
        seen: u8,
        left: u8,
    },
    Insert {
        seen: u8,
    },
    Answered,
    Committed,
    RolledBack,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Running {
    Idle,
    /// The job, and the changes that its run sees.
    Job(u8, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    jobs: [Job; JOBS],
    writers: [Writing; WRITERS],
    executors: [Running; EXECUTORS],
    /// Changes seen by a completed run.
    served: u8,
    /// Jobs that may be given up yet, and that were.
    failures: u8,
    given_up: u8,
}

impl Job {
    /// Nobody but this writer holds it alone.
    fn is_free(&self, me: usize) -> bool {
        self.held_by == NOBODY && (self.raised_by == NOBODY || self.raised_by == me as u8)
    }
}

/// One writer's change was caused by nothing, the others' by a long chain.
fn is_deep(writer: usize) -> bool {
    writer > 0
}

fn newest(jobs: u8) -> u8 {
    8 - jobs.leading_zeros() as u8
}

impl World {
    fn new(failures: u8) -> World {
        let absent = Job {
            row: Row::Absent,
            beside: 0,
            held_by: NOBODY,
            raised_by: NOBODY,
            is_deep: false,
            shared_by: 0,
            announced: false,
        };
        let mut jobs = [absent; JOBS];
        jobs[0].row = Row::Waits;
        jobs[0].announced = true;
        jobs[0].is_deep = true;
        World {
            jobs,
            writers: [Writing::Look; WRITERS],
            executors: [Running::Idle; EXECUTORS],
            served: 0,
            failures,
            given_up: 0,
        }
    }

    fn committed(&self) -> u8 {
        let writers = self.writers.iter().enumerate();
        let committed = writers.filter(|(_, writer)| **writer == Writing::Committed);
        committed.fold(0, |all, (me, _)| all | 1 << me)
    }

    fn is_bad(&self) -> bool {
        let waiting = self
            .jobs
            .iter()
            .filter(|job| job.row == Row::Waits && job.held_by == NOBODY);
        let of_depth = |deep: bool| waiting.clone().filter(|job| job.is_deep == deep).count();
        let most = 2 + usize::from(self.given_up);
        if of_depth(true) > most || of_depth(false) > most || waiting.clone().count() > most + 1 {
            return true;
        }
        let ended = |writer: &Writing| matches!(writer, Writing::Committed | Writing::RolledBack);
        let is_over = self.writers.iter().all(ended)
            && self.executors == [Running::Idle; EXECUTORS]
            && !self.jobs.iter().any(|job| job.announced);
        is_over && (self.committed() & !self.served != 0 || waiting.count() > 0)
    }

    fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..WRITERS {
            self.step_writer(rules, me, visit);
        }
        for me in 0..EXECUTORS {
            self.step_executor(rules, me, visit);
        }
    }

    fn step_writer(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        next.writers[me] = match self.writers[me] {
            Writing::Look => {
                let seen = (0..JOBS)
                    .filter(|job| self.jobs[*job].row == Row::Waits)
                    .fold(0, |seen, job| seen | 1 << job);
                Writing::Lock { seen, left: seen }
            }
            Writing::Lock { seen, left: 0 } => Writing::Insert { seen },
            Writing::Lock { seen, left } => {
                let number = newest(left) - 1;
                let job = &mut next.jobs[usize::from(number)];
                if job.row != Row::Waits {
                    Writing::Look
                } else if job.is_free(me) || rules == Some(Fault::CountsClaimed) {
                    if rules != Some(Fault::LocksNothing) && job.is_free(me) {
                        job.shared_by |= 1 << me;
                    }
                    let deeper = job.is_deep && !is_deep(me);
                    let alone = job.shared_by & !(1 << me) == 0;
                    if deeper && alone {
                        if rules != Some(Fault::AnswersDeeper) && job.is_free(me) {
                            job.raised_by = me as u8;
                            job.is_deep = false;
                        }
                        Writing::Answered
                    } else if deeper && rules != Some(Fault::AnswersDeeper) {
                        Writing::Lock {
                            seen,
                            left: left & !(1 << number),
                        }
                    } else {
                        Writing::Answered
                    }
                } else {
                    Writing::Lock {
                        seen,
                        left: left & !(1 << number),
                    }
                }
            }
            Writing::Insert { seen } => {
                let beside = newest(seen);
                let is_same = |job: &Job| {
                    matches!(job.row, Row::Unborn(_) | Row::Waits) && job.beside == beside
                };
                match self.jobs.iter().position(is_same) {
                    Some(other) if rules != Some(Fault::InsertsBlindly) => {
                        match self.jobs[other].row {
                            Row::Unborn(_) => return,
                            _ if rules == Some(Fault::AnswersConflict) => Writing::Answered,
                            _ => Writing::Look,
                        }
                    }
                    _ => {
                        let free = self.jobs.iter().position(|job| job.row == Row::Absent);
                        let job = &mut next.jobs[free.expect("one for each writer")];
                        job.row = Row::Unborn(me as u8);
                        job.is_deep = is_deep(me);
                        job.beside = beside;
                        Writing::Answered
                    }
                }
            }
            Writing::Answered => {
                for commits in [true, false] {
                    let mut ended = *self;
                    ended.end(rules, me, commits);
                    visit(ended);
                }
                if rules == Some(Fault::UnlocksEarly) {
                    for job in next
                        .jobs
                        .iter_mut()
                        .filter(|job| job.shared_by >> me & 1 == 1)
                    {
                        job.shared_by &= !(1 << me);
                        job.announced = true;
                    }
                    visit(next);
                }
                return;
            }
            Writing::Committed | Writing::RolledBack => return,
        };
        visit(next);
    }

    fn end(&mut self, rules: Rules, me: usize, commits: bool) {
        let announces = match rules {
            Some(Fault::SilentEnd) => false,
            Some(Fault::SilentRollback) => commits,
            _ => true,
        };
        for job in &mut self.jobs {
            if job.shared_by >> me & 1 == 1 {
                job.shared_by &= !(1 << me);
                job.announced |= announces;
            }
            if job.raised_by == me as u8 {
                job.raised_by = NOBODY;
                job.is_deep = !commits;
            }
            if job.row == Row::Unborn(me as u8) {
                job.row = if commits { Row::Waits } else { Row::Gone };
                job.announced = commits;
            }
        }
        self.writers[me] = if commits {
            Writing::Committed
        } else {
            Writing::RolledBack
        };
    }

    fn step_executor(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        match self.executors[me] {
            Running::Idle => {
                for number in 0..JOBS {
                    if !self.jobs[number].announced {
                        continue;
                    }
                    let mut next = *self;
                    let job = &mut next.jobs[number];
                    job.announced = false;
                    let is_free = job.held_by == NOBODY
                        && job.raised_by == NOBODY
                        && (job.shared_by == 0 || rules == Some(Fault::ClaimsShared));
                    if job.row == Row::Waits && is_free {
                        job.held_by = me as u8;
                        next.executors[me] = Running::Job(number as u8, self.committed());
                    }
                    visit(next);
                }
            }
            Running::Job(number, sees) => {
                let mut done = *self;
                done.executors[me] = Running::Idle;
                done.jobs[usize::from(number)].held_by = NOBODY;
                let mut given_up = done;
                done.jobs[usize::from(number)].row = Row::Gone;
                let deep = (0..WRITERS)
                    .filter(|me| is_deep(*me))
                    .fold(0, |all, me| all | 1 << me);
                let too_deep = self.jobs[usize::from(number)].is_deep;
                done.served |= if too_deep { sees & deep } else { sees };
                visit(done);
                if self.failures > 0 {
                    given_up.failures -= 1;
                    given_up.given_up += 1;
                    given_up.jobs[usize::from(number)].announced = true;
                    visit(given_up);
                }
            }
        }
    }
}

/// Jobs that may be given up in the midst.
const FAILURES: [u8; 2] = [0, 1];

fn explore(failures: u8, rules: Rules) -> (usize, bool) {
    common::explore(World::new(failures), World::is_bad, |world, mut visit| {
        world.successors(rules, &mut visit);
    })
}

#[test]
fn each_change_is_seen_by_a_run_that_starts_after_its_commit() {
    common::assert_holds(&FAILURES, |failures| explore(failures, None));
}

#[test]
fn each_broken_variant_swallows_a_change_or_lets_jobs_pile_up() {
    common::assert_caught(&FAULTS, &FAILURES, |failures, fault| {
        explore(failures, Some(fault)).1
    });
}
