//! Every interleaving of workers outside that wait for something to claim (src/job/lease/wait.rs, src/shared/queue/wake.rs), and of
//! broken variants, each of which must be caught.
//!
//! ```text
//! enqueuer    commits a job, then announces it: sets the ready bit, and if somebody is on the list of sleepers notes the time and
//!             signals the first of them, who leaves the list.
//! waiter      looks: reads the noted time, clears the bit, reads the table. If a job is there it notes the time, sets the bit again, and
//!             then claims. Else it forgets the noted time if that is still the one it has read, goes on the list, looks at the bit once more, and sleeps until it is signalled. It may die anywhere.
//! claim       forgets the noted time, clears the bit, takes one job, and announces what is left.
//! scheduler   comes a while after the noted time. If nobody has claimed since, and the bit is set, it signals the next sleeper. If
//!             the bit is clear, it comes again: somebody looks just now.
//! sweep       finds a job that somebody has committed and nobody announced: reads the table. If a job is there it sets the bit. If no time is noted, it signals as an enqueuer does. Else it notes the time
//!             anew and signals nobody; if the bit is clear by then, it forgets what it has noted.
//! drop        takes the queue and its jobs out of the table, whoever reads its definition from here on finds it gone; gives up its place;
//!             and signals all who are on the list. A waiter looks the queue up at the beginning of each look, and before it sleeps also
//!             whether the place is still the queue's. What becomes of it then, an error or a wait at another place where the queue was
//!             registered again, is no matter of this place.
//! ```
//!
//! Looks of waiters and of claims come one after the other, as `core/tests/claim_enter_model/` has them; here they may overlap, which is more
//! than there is. Steps are atomic where the server makes them so: an atomic operation, a look at the table, the list under its spinlock. Checked
//! of every world at rest: no job is ready while a waiter sleeps, and none sleeps where the queue was dropped. And of every world: who was not signalled and saw no bit does not
//! wake, so one job wakes one waiter until the scheduler comes.

#[path = "../common/mod.rs"]
mod common;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The bit is set after the look for sleepers.
    SignalsFirst,
    /// Nobody is signalled.
    SignalsNobody,
    /// Who goes to sleep does not look at the bit again.
    SleepsBlindly,
    /// It looks at the bit before it is on the list.
    ListsLate,
    /// A look that finds a job leaves the bit clear.
    KeepsBitClear,
    /// The table is read before the bit is cleared.
    ReadsFirst,
    /// A claim leaves jobs behind and says nothing.
    LeavesSilently,
    /// The scheduler is not told of a signal.
    NotesNothing,
    /// A look forgets whatever time is noted.
    LookForgets,
    /// Who finds a job without a signal notes nothing.
    FindsUnnoted,
    /// A sweep that finds a time noted leaves it at that.
    SweepBelievesNote,
    /// A drop signals nobody.
    DropsSilently,
    /// It signals before the queue is gone.
    DropSignalsFirst,
    /// Who goes to sleep looks at the bit alone, and not whose the place is.
    SleepsAnywhere,
}

const FAULTS: [Fault; 14] = [
    Fault::SignalsFirst,
    Fault::SignalsNobody,
    Fault::SleepsBlindly,
    Fault::ListsLate,
    Fault::KeepsBitClear,
    Fault::ReadsFirst,
    Fault::LeavesSilently,
    Fault::NotesNothing,
    Fault::LookForgets,
    Fault::FindsUnnoted,
    Fault::SweepBelievesNote,
    Fault::DropsSilently,
    Fault::DropSignalsFirst,
    Fault::SleepsAnywhere,
];

type Rules = Option<Fault>;

const ENQUEUERS: usize = 2;
const WAITERS: usize = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Announcing {
    Bit,
    Signal,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Enqueuer {
    Begins,
    Announces(Announcing),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Waiter {
    Clears,
    /// With the time that was noted before.
    Reads(u8),
    /// Has read the table: whether a job is there.
    Found(bool, u8),
    Lists,
    Rechecks,
    Sleeps,
    ClaimClears,
    ClaimTakes,
    /// Announces what its claim has left.
    Announces(Announcing),
    Dead,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sweep {
    /// Somebody commits a job that nobody announces.
    Begins,
    Reads,
    /// Has found a job.
    Found,
    /// Has set the bit.
    Ready,
    /// Whether a time was noted.
    Looked(bool),
    /// Has noted this.
    Noted(u8),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Dropper {
    /// There is none.
    None,
    Begins,
    /// Too early.
    Signalled,
    /// Who looks the queue up finds it gone.
    Dropped,
    /// Has given up its place.
    Freed,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    jobs: u8,
    bit: bool,
    /// Sleepers, a bit each; the lowest was there first.
    list: u8,
    /// One more with each signal; 0: nobody was signalled, or somebody has claimed since.
    noted: u8,
    signals: u8,
    enqueuers: [Enqueuer; ENQUEUERS],
    waiters: [Waiter; WAITERS],
    sweep: Sweep,
    dropper: Dropper,
    deaths: u8,
}

impl World {
    fn new(case: Case) -> World {
        let mut waiters = [Waiter::Dead; WAITERS];
        waiters[..case.waiters].fill(Waiter::Clears);
        let mut enqueuers = [Enqueuer::Announces(Announcing::Done); ENQUEUERS];
        enqueuers[..case.enqueuers].fill(Enqueuer::Begins);
        World {
            jobs: 0,
            bit: true,
            list: 0,
            noted: 0,
            signals: 0,
            enqueuers,
            waiters,
            sweep: if case.sweeps {
                Sweep::Begins
            } else {
                Sweep::Done
            },
            dropper: if case.drops {
                Dropper::Begins
            } else {
                Dropper::None
            },
            deaths: case.deaths,
        }
    }

    fn is_bad(&self) -> bool {
        let done = |enqueuer: &Enqueuer| *enqueuer == Enqueuer::Announces(Announcing::Done);
        let rests = |(me, waiter): (usize, &Waiter)| match waiter {
            Waiter::Sleeps => self.list >> me & 1 == 1,
            Waiter::Dead => true,
            _ => false,
        };
        let is_at_rest = self.enqueuers.iter().all(done)
            && self.waiters.iter().enumerate().all(rests)
            && self.sweep == Sweep::Done
            && matches!(self.dropper, Dropper::None | Dropper::Done)
            && (self.noted == 0 || !self.bit || !self.is_here());
        is_at_rest && (self.jobs > 0 || !self.is_here()) && self.waiters.contains(&Waiter::Sleeps)
    }

    /// Whether the place is still the queue's.
    fn is_here(&self) -> bool {
        !matches!(self.dropper, Dropper::Freed | Dropper::Done)
    }

    /// Whether whoever looks it up finds the queue.
    fn is_defined(&self) -> bool {
        matches!(
            self.dropper,
            Dropper::None | Dropper::Begins | Dropper::Signalled
        )
    }

    fn signal(&mut self, rules: Rules) {
        if self.list == 0 || !self.is_here() || rules == Some(Fault::SignalsNobody) {
            return;
        }
        if rules != Some(Fault::NotesNothing) {
            self.signals += 1;
            self.noted = self.signals;
        }
        self.list &= self.list - 1;
    }

    /// The next step of an announcement.
    fn announce(&mut self, rules: Rules, at: Announcing) -> Announcing {
        let signals_first = rules == Some(Fault::SignalsFirst);
        match at {
            Announcing::Bit if signals_first => {
                self.signal(rules);
                Announcing::Signal
            }
            Announcing::Bit => {
                self.bit = true;
                Announcing::Signal
            }
            Announcing::Signal if signals_first => {
                self.bit = true;
                Announcing::Done
            }
            Announcing::Signal => {
                self.signal(rules);
                Announcing::Done
            }
            Announcing::Done => Announcing::Done,
        }
    }

    fn successors(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..ENQUEUERS {
            let mut next = *self;
            next.enqueuers[me] = match self.enqueuers[me] {
                // Refused.
                Enqueuer::Begins if !self.is_defined() => Enqueuer::Announces(Announcing::Done),
                Enqueuer::Begins => {
                    next.jobs += 1;
                    Enqueuer::Announces(Announcing::Bit)
                }
                Enqueuer::Announces(Announcing::Done) => continue,
                Enqueuer::Announces(at) => Enqueuer::Announces(next.announce(rules, at)),
            };
            visit(next);
        }
        for me in 0..WAITERS {
            self.step_waiter(rules, me, visit);
        }
        self.step_sweep(rules, visit);
        self.step_dropper(rules, visit);
        // A while later.
        if self.noted > 0 && self.bit && self.is_here() {
            let mut next = *self;
            next.noted = 0;
            next.signal(rules);
            visit(next);
        }
    }

    fn step_dropper(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let signals_first = rules == Some(Fault::DropSignalsFirst);
        next.dropper = match self.dropper {
            Dropper::Begins if signals_first => {
                next.list = 0;
                Dropper::Signalled
            }
            Dropper::Begins | Dropper::Signalled => {
                next.jobs = 0;
                Dropper::Dropped
            }
            Dropper::Dropped if signals_first => Dropper::Done,
            Dropper::Dropped => Dropper::Freed,
            Dropper::Freed => {
                if rules != Some(Fault::DropsSilently) {
                    next.list = 0;
                }
                Dropper::Done
            }
            Dropper::Done | Dropper::None => return,
        };
        visit(next);
    }

    fn step_sweep(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        next.sweep = match self.sweep {
            Sweep::Begins if !self.is_defined() => Sweep::Done,
            Sweep::Begins => {
                next.jobs += 1;
                Sweep::Reads
            }
            Sweep::Reads if self.jobs > 0 => Sweep::Found,
            Sweep::Reads => Sweep::Done,
            Sweep::Found => {
                next.bit = true;
                Sweep::Ready
            }
            Sweep::Ready => Sweep::Looked(self.noted > 0),
            Sweep::Looked(false) => {
                next.signal(rules);
                Sweep::Done
            }
            Sweep::Looked(true) if rules == Some(Fault::SweepBelievesNote) => Sweep::Done,
            Sweep::Looked(true) => {
                next.signals += 1;
                next.noted = next.signals;
                Sweep::Noted(next.noted)
            }
            Sweep::Noted(noted) => {
                if !self.bit && self.noted == noted {
                    next.noted = 0;
                }
                Sweep::Done
            }
            Sweep::Done => return,
        };
        visit(next);
    }

    fn step_waiter(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let reads_first = rules == Some(Fault::ReadsFirst);
        let lists_late = rules == Some(Fault::ListsLate);
        next.waiters[me] = match self.waiters[me] {
            Waiter::Clears if !self.is_defined() => Waiter::Dead,
            Waiter::Clears if reads_first => Waiter::Found(self.jobs > 0, self.noted),
            Waiter::Clears => {
                next.bit = false;
                Waiter::Reads(self.noted)
            }
            Waiter::Reads(noted) => Waiter::Found(self.jobs > 0, noted),
            Waiter::Found(true, _) => {
                // It is as good as signalled.
                if !matches!(rules, Some(Fault::FindsUnnoted | Fault::NotesNothing)) {
                    next.signals += 1;
                    next.noted = next.signals;
                }
                next.bit = rules != Some(Fault::KeepsBitClear);
                Waiter::ClaimClears
            }
            Waiter::Found(false, noted) => {
                next.bit &= !reads_first;
                if self.noted == noted || rules == Some(Fault::LookForgets) {
                    next.noted = 0;
                }
                if lists_late {
                    Waiter::Rechecks
                } else {
                    Waiter::Lists
                }
            }
            Waiter::Lists => {
                next.list |= 1 << me;
                if lists_late || rules == Some(Fault::SleepsBlindly) {
                    Waiter::Sleeps
                } else {
                    Waiter::Rechecks
                }
            }
            Waiter::Rechecks
                if self.bit || !self.is_here() && rules != Some(Fault::SleepsAnywhere) =>
            {
                next.list &= !(1 << me);
                Waiter::Clears
            }
            Waiter::Rechecks if lists_late => Waiter::Lists,
            Waiter::Rechecks => Waiter::Sleeps,
            Waiter::Sleeps if self.list >> me & 1 == 1 => {
                self.die(me, visit);
                return;
            }
            Waiter::Sleeps => Waiter::Clears,
            Waiter::ClaimClears => {
                next.noted = 0;
                next.bit = false;
                Waiter::ClaimTakes
            }
            Waiter::ClaimTakes => {
                next.jobs = self.jobs.saturating_sub(1);
                if next.jobs > 0 && rules != Some(Fault::LeavesSilently) {
                    Waiter::Announces(Announcing::Bit)
                } else {
                    Waiter::Clears
                }
            }
            Waiter::Announces(Announcing::Done) => Waiter::Clears,
            Waiter::Announces(at) => Waiter::Announces(next.announce(rules, at)),
            Waiter::Dead => return,
        };
        visit(next);
        // In the midst of a look or a claim its transaction's end puts back what it has taken.
        if !matches!(
            self.waiters[me],
            Waiter::Reads(_) | Waiter::Found(..) | Waiter::ClaimTakes | Waiter::Announces(_)
        ) {
            self.die(me, visit);
        }
    }

    fn die(&self, me: usize, visit: &mut dyn FnMut(World)) {
        if self.deaths == 0 {
            return;
        }
        let mut next = *self;
        next.deaths -= 1;
        next.list &= !(1 << me);
        next.waiters[me] = Waiter::Dead;
        visit(next);
    }
}

#[derive(Clone, Copy, Debug)]
struct Case {
    enqueuers: usize,
    waiters: usize,
    /// How many of them die.
    deaths: u8,
    sweeps: bool,
    drops: bool,
}

const fn case(enqueuers: usize, waiters: usize, deaths: u8, sweeps: bool) -> Case {
    Case {
        enqueuers,
        waiters,
        deaths,
        sweeps,
        drops: false,
    }
}

// With three waiters, two of whom die, a look that forgets what another has noted loses a job.
const CASES: [Case; 4] = [
    case(2, 2, 2, false),
    case(1, 3, 2, false),
    case(1, 2, 2, true),
    Case {
        drops: true,
        ..case(1, 2, 1, false)
    },
];

fn explore(case: Case, rules: Rules) -> (usize, bool) {
    common::explore(World::new(case), World::is_bad, |world, mut visit| {
        world.successors(rules, &mut visit);
    })
}

#[test]
fn no_job_is_ready_while_a_waiter_sleeps() {
    common::assert_holds(&CASES, |case| explore(case, None));
}

#[test]
fn each_broken_variant_lets_a_job_wait() {
    common::assert_caught(&FAULTS, &CASES, |case, fault| explore(case, Some(fault)).1);
}
