//! Every interleaving of those who ask for one unique key again and again, each before the last one's transaction has ended
//! (`is_starving` in src/job/unique_key.rs), and of broken variants, each of which must be caught. That no change is swallowed is
//! `key_model`'s.
//!
//! ```text
//! writer      looks which jobs of the key wait. Is there one only, and its turn has come long ago: insert another beside it. Else lock the newest
//!             that nobody holds alone, in share mode; none: insert. End the transaction, which announces what was locked or inserted. And again.
//! executor    runs an announced job that nobody has locked, from the oldest on; passes over one that is locked.
//! time        a job that waits has waited for long.
//! ```
//!
//! Checked of every world: once a job has waited for long and is the next, no more locks are put on it than two for each writer that was on
//! its way (an older job may be committed meanwhile, and come first), so it starts when these have ended; of jobs that wait there is one more than writers at most; and where nothing more happens none is left.

#[path = "../common/mod.rs"]
mod common;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A job that has waited for long is locked on.
    Patient,
    /// Another is inserted although one waits beside it already.
    MindsNoOther,
    /// What has waited for long is passed over for good by those who end.
    SilentEnd,
}

const FAULTS: [Fault; 3] = [Fault::Patient, Fault::MindsNoOther, Fault::SilentEnd];

type Rules = Option<Fault>;

const WRITERS: usize = 2;
/// Each asks so many times.
const ROUNDS: u8 = 3;
const JOBS: usize = 1 + WRITERS * ROUNDS as usize;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Row {
    Absent,
    Unborn(u8),
    Waits,
    Gone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Job {
    row: Row,
    /// One more than the job that it stands beside.
    beside: u8,
    shared_by: u8,
    announced: bool,
    is_late: bool,
    /// Locks put on it since then, while no other waited: one that waits before it comes first.
    locks: u8,
}

const ABSENT: Job = Job {
    row: Row::Absent,
    beside: 0,
    shared_by: 0,
    announced: false,
    is_late: false,
    locks: 0,
};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Writing {
    Look,
    /// The job to be locked.
    Lock(u8),
    /// Beside that one, plus one.
    Insert(u8),
    Answered,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    jobs: [Job; JOBS],
    writers: [Writing; WRITERS],
    rounds: [u8; WRITERS],
}

impl World {
    fn new() -> World {
        let mut jobs = [ABSENT; JOBS];
        jobs[0].row = Row::Waits;
        jobs[0].announced = true;
        World {
            jobs,
            writers: [Writing::Look; WRITERS],
            rounds: [ROUNDS; WRITERS],
        }
    }

    fn waiting(&self) -> impl DoubleEndedIterator<Item = usize> + '_ {
        (0..JOBS).filter(|job| self.jobs[*job].row == Row::Waits)
    }

    fn is_bad(&self) -> bool {
        let is_over = self.rounds == [0; WRITERS] && !self.jobs.iter().any(|job| job.announced);
        self.waiting().count() > 1 + WRITERS
            || self
                .jobs
                .iter()
                .any(|job| usize::from(job.locks) > 2 * WRITERS)
            || is_over && self.waiting().count() > 0
    }

    fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..WRITERS {
            self.step_writer(rules, me, visit);
        }
        let announced = (0..JOBS).find(|job| self.jobs[*job].announced);
        if let Some(oldest) = announced {
            let mut next = *self;
            let job = &mut next.jobs[oldest];
            job.announced = false;
            if job.row == Row::Waits && job.shared_by == 0 {
                *job = Job {
                    row: Row::Gone,
                    ..ABSENT
                };
            }
            visit(next);
        }
        for job in self.waiting().filter(|job| !self.jobs[*job].is_late) {
            let mut next = *self;
            next.jobs[job].is_late = true;
            visit(next);
        }
    }

    fn step_writer(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        if self.rounds[me] == 0 {
            return;
        }
        next.writers[me] = match self.writers[me] {
            Writing::Look => {
                let newest = self.waiting().next_back();
                let is_only = self.waiting().count() == 1 || rules == Some(Fault::MindsNoOther);
                match newest {
                    None => Writing::Insert(0),
                    Some(newest)
                        if is_only
                            && self.jobs[newest].is_late
                            && rules != Some(Fault::Patient) =>
                    {
                        Writing::Insert(newest as u8 + 1)
                    }
                    Some(newest) => Writing::Lock(newest as u8),
                }
            }
            Writing::Lock(job) => {
                let is_only = self.waiting().count() == 1;
                let job = &mut next.jobs[usize::from(job)];
                if job.row == Row::Waits {
                    job.shared_by |= 1 << me;
                    job.locks += u8::from(job.is_late && is_only);
                    Writing::Answered
                } else {
                    Writing::Look
                }
            }
            Writing::Insert(beside) => {
                let is_same = |job: &Job| {
                    matches!(job.row, Row::Unborn(_) | Row::Waits) && job.beside == beside
                };
                // The first one stands beside nothing too, and is there as long as it is seen.
                let other = self.jobs.iter().find(|job| is_same(job));
                match other.map(|job| job.row) {
                    Some(Row::Unborn(_)) => return,
                    Some(_) => Writing::Look,
                    None => {
                        let free = self.jobs.iter().position(|job| job.row == Row::Absent);
                        next.jobs[free.expect("one for each round")] = Job {
                            row: Row::Unborn(me as u8),
                            beside,
                            ..ABSENT
                        };
                        Writing::Answered
                    }
                }
            }
            Writing::Answered => {
                for job in &mut next.jobs {
                    if job.shared_by >> me & 1 == 1 {
                        job.shared_by &= !(1 << me);
                        job.announced |= rules != Some(Fault::SilentEnd);
                    }
                    if job.row == Row::Unborn(me as u8) {
                        job.row = Row::Waits;
                        job.announced = true;
                    }
                }
                next.rounds[me] -= 1;
                Writing::Look
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
fn a_job_whose_key_is_asked_for_again_and_again_starts() {
    common::assert_holds(&[()], |()| explore(None));
}

#[test]
fn each_broken_variant_keeps_a_job_from_starting_or_lets_jobs_pile_up() {
    common::assert_caught(&FAULTS, &[()], |(), fault| explore(Some(fault)).1);
}
