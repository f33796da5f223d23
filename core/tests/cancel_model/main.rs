//! Every interleaving of the protocol by which a job that executors hold is cancelled (src/shared/cancels.rs,
//! src/job/cancel.rs, src/worker/run/run_batch.rs), and of broken variants, each of which must be caught.
//!
//! ```text
//! canceller   looks how the job stands. Undecided: ask, look again; still undecided: write the promise down in a table, true,
//!             and the transaction ends some time, by commit (the request is a promise) or rollback (it is gone, and the job
//!             is announced). Accepted: take the request back. Then lock the row, waiting for who has it: gone is false, else
//!             cancel it oneself: true. Before it is prepared it waits for the row of what it has asked for, and cancels the
//!             job itself, too.
//! executor    claims: lock the row, say that it holds it, undecided. Before the job: asked? committed: to be cancelled;
//!             open: leave it as it is. Or give it up, unrun. Run. Say 'accepted', then look: asked? roll the job back, and as
//!             before. Record: completed, or cancelled. Say 'accepted' of all that it holds, because another may have the row
//!             next. Commit: row lock and record at once; what was given up is announced. Say that nothing is held.
//!             Promised meanwhile: cancel the free row. Left, and not asked for any more: announce it. It may be struck at any
//!             time, or its commit fail: say 'accepted', roll back, lock the row again if it is free, asked? else the job
//!             is discarded; and as after a commit.
//! another     claims it when it is free and announced, and so on.
//! scheduler   cancels the free row of a promise.
//! crash       what is in shared memory is gone, as are locks but those of what was prepared. Whoever comes first, scheduler
//!             or executor, or both, takes up the promises in the table before it claims anything: reads them, asks for what
//!             nobody asks for, reads them again, and takes back what is there no more. They count with its commit, which may
//!             fail. A sweep takes them up, too, because a load may bring some, while executors are at work.
//!             A session that is about to run jobs takes them up at once, whatever becomes of its transaction: what it asks for counts
//!             as soon as it is asked for, and it takes back its own request and no other, though the place of that is another's by then.
//! retry       a job that was cancelled is made to run again: its promise is gone with the cancel, what is left of it in shared
//!             memory stands for nothing. Then it may be cancelled once more.
//! ```
//! What is in the table is promised; shared memory says where to look. Who carries a promise out finds it in the table once the
//! row is locked, cancels the job and removes the promise in one transaction, or what is left of it later.
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
    /// A promise is in shared memory only.
    WritesNothingDown,
    /// After a crash executors claim before the promises are read.
    ClaimsUnread,
    /// The promise is removed from the table when the executor sees it, before the job is cancelled.
    RemovesEarly,
    /// Who carries it out cancels the job because shared memory says so, whether or not it is in the table still.
    BelievesMemory,
    /// Who finds a request without its promise does not announce the job.
    DropsInSilence,
    /// What is taken up is not looked for again once it is asked for, and counts at once.
    RecallsUnchecked,
    /// Who takes up what was promised says so although the transaction failed.
    RecallsWithoutCommit,
    /// A session that takes up at once says that all was taken up before it has asked for it.
    SaysReadFirst,
    /// It takes its request back and does not announce the job, which somebody has left to who asks.
    TakesBackInSilence,
    /// It takes back what it finds in the place of its request, of the same job.
    TakesBackAnothers,
    /// Nobody removes it.
    RemovesNothing,
    /// What was prepared takes its request back before it has the row.
    PreparesUnlocked,
    /// An executor that is struck still says 'undecided' when its row is free, and another has it.
    DiesUndecided,
    /// So does one that has given the job up, once it has committed.
    GivesUpUndecided,
    /// It looks for requests before it has the row again, to write down that the job has failed.
    BlamesUnlocked,
}

const FAULTS: [Fault; 23] = [
    Fault::LooksBeforeAccepting,
    Fault::LooksBeforeOnly,
    Fault::MindsCommittedOnly,
    Fault::AsksAndBelieves,
    Fault::IgnoresAccepted,
    Fault::AnnouncesBeforeGivingUp,
    Fault::LeavesForGood,
    Fault::CarriesOutNothing,
    Fault::WritesNothingDown,
    Fault::ClaimsUnread,
    Fault::RemovesEarly,
    Fault::BelievesMemory,
    Fault::DropsInSilence,
    Fault::RecallsUnchecked,
    Fault::RecallsWithoutCommit,
    Fault::SaysReadFirst,
    Fault::TakesBackInSilence,
    Fault::TakesBackAnothers,
    Fault::RemovesNothing,
    Fault::PreparesUnlocked,
    Fault::DiesUndecided,
    Fault::GivesUpUndecided,
    Fault::BlamesUnlocked,
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
    GiveUp,
}

const NOBODY: u8 = 9;
const CANCELLER: u8 = 8;
/// Whose request it is: the canceller's, or of those who take up promises.
const OWN: usize = 0;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    /// An executor: at rest.
    Idle,
    SayHeld,
    LookBefore,
    Run,
    Accept,
    LookAfter,
    /// It says of all that it holds that it decides nothing any more.
    LetGo(Outcome),
    Commit(Outcome),
    /// It was struck, or failed.
    RollBack,
    /// It writes down what has failed, in another transaction.
    Blame,
    LookBlamed,
    Discard,
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
    Told(bool),
    /// Committed: the promise is in the table, and not yet in shared memory.
    Promises,
    /// It is to be prepared, and waits for the row.
    Prepares,
    /// It has the row, and takes its request back.
    Settles,
    /// Any session ends it: by COMMIT PREPARED or ROLLBACK PREPARED.
    Prepared,
    Announces,
    GivesUp,
    Over(Option<bool>),
}

/// Who takes up what was promised.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Recall {
    Idle,
    Ask,
    LookAgain,
    Commit,
    GivesUp,
    Announces,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    row: Row,
    locked_by: u8,
    announced: bool,
    requests: [Request; 3],
    standing: [Standing; 2],
    executors: [At; 2],
    canceller: Asking,
    /// The scheduler is asked to carry out a promise.
    scheduler: bool,
    /// Commits that fail yet, or strikes.
    failures: u8,
    /// The promise is in the table.
    written: bool,
    /// Promises of before the last crash were read from there.
    is_read: bool,
    recalls: [Recall; 2],
    /// Sweeps that come yet.
    sweeps: u8,
    crashes: u8,
    retried: bool,
    /// It is cancelled once more since.
    again: bool,
}

/// Which of those who take up promises does so at once.
const AT_ONCE: usize = 1;

impl World {
    fn new() -> World {
        World {
            row: Row::Waits,
            locked_by: NOBODY,
            announced: true,
            requests: [Request::None; 3],
            standing: [Standing::NotHeld; 2],
            executors: [At::Idle; 2],
            canceller: Asking::Look,
            scheduler: false,
            failures: 2,
            written: false,
            is_read: true,
            recalls: [Recall::Idle; 2],
            sweeps: 1,
            crashes: 1,
            retried: false,
            again: false,
        }
    }

    fn crash(&self) -> World {
        let is_prepared = self.canceller == Asking::Prepared;
        World {
            // Nothing is known of the table: it is looked into from its beginning, and by a scheduler.
            announced: true,
            scheduler: true,
            is_read: false,
            locked_by: if is_prepared { CANCELLER } else { NOBODY },
            requests: [Request::None; 3],
            recalls: [Recall::Idle; 2],
            standing: [Standing::NotHeld; 2],
            executors: [At::Idle; 2],
            canceller: match self.canceller {
                told @ (Asking::Over(_) | Asking::Prepared) => told,
                Asking::Promises => Asking::Over(Some(true)),
                _ => Asking::Over(None),
            },
            crashes: self.crashes - 1,
            ..*self
        }
    }

    /// Of all requests the committed one counts.
    fn request(&self) -> Request {
        let has = |request| self.requests.contains(&request);
        if has(Request::Committed) {
            Request::Committed
        } else if has(Request::Open) {
            Request::Open
        } else {
            Request::None
        }
    }

    /// What is committed in shared memory is carried out, or was; what is open is its owner's.
    fn free_committed(&mut self) {
        for request in &mut self.requests {
            if *request == Request::Committed {
                *request = Request::None;
            }
        }
    }

    /// The promise is carried out: by the transaction in which that was found, or that cancels the job.
    fn forget_promise(&mut self, rules: Rules) {
        self.free_committed();
        self.written &= rules == Some(Fault::RemovesNothing);
    }

    /// Whether the job is to be cancelled, by one who has its row.
    fn is_promised(&self, rules: Rules) -> bool {
        self.request() == Request::Committed
            && (self.written
                || matches!(
                    rules,
                    Some(Fault::BelievesMemory | Fault::WritesNothingDown | Fault::RemovesEarly)
                ))
    }

    /// Cancels the job whose row is free, or tells that nobody has to: whoever met the request has left the job to that.
    fn decide(&self, next: &mut World, rules: Rules) {
        if self.is_promised(rules) {
            next.row = Row::Cancelled;
        } else {
            next.announced |= rules != Some(Fault::DropsInSilence);
        }
    }

    fn standing(&self) -> Standing {
        // Of two who say that they hold it, one has let go of the row.
        let says = |standing| self.standing.contains(&standing);
        if says(Standing::Undecided) {
            Standing::Undecided
        } else if says(Standing::Accepted) {
            Standing::Accepted
        } else {
            Standing::NotHeld
        }
    }

    fn with(&self, me: usize, at: At) -> [At; 2] {
        let mut executors = self.executors;
        executors[me] = at;
        executors
    }

    fn free_row(&self) -> bool {
        self.row == Row::Waits && self.locked_by == NOBODY
    }

    fn asked(&self, rules: Rules) -> Request {
        match self.request() {
            Request::Open if rules == Some(Fault::MindsCommittedOnly) => Request::None,
            request => request,
        }
    }

    fn is_over(&self) -> bool {
        self.executors == [At::Idle; 2]
            && self.recalls == [Recall::Idle; 2]
            && matches!(self.canceller, Asking::Over(_))
    }

    fn is_bad(&self) -> bool {
        let Asking::Over(told) = self.canceller else {
            return false;
        };
        let is_at_rest = self.is_over() && !(self.announced && self.free_row());
        let is_forgotten = self.row == Row::Waits && !self.scheduler;
        match told {
            // Whoever made it run again undid that.
            Some(true) if self.retried && !self.again => {
                self.row == Row::Cancelled || is_at_rest && is_forgotten
            }
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
        for me in 0..2 {
            self.step_recall(rules, me, visit);
        }
        if self.crashes > 0 {
            visit(self.crash());
        }
        let is_cancelled = self.canceller == Asking::Over(Some(true)) && self.row == Row::Cancelled;
        if is_cancelled && !self.retried {
            visit(World {
                row: Row::Waits,
                announced: true,
                retried: true,
                ..*self
            });
        }
        let is_over = matches!(self.canceller, Asking::Over(_));
        if self.retried && !self.again && is_over && self.crashes == 1 {
            visit(World {
                canceller: Asking::Look,
                again: true,
                ..*self
            });
        }
        if self.scheduler && self.is_read {
            self.step_scheduler(rules, visit);
        }
    }

    fn step_scheduler(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        next.scheduler = false;
        if self.request() == Request::Committed {
            if self.free_row() {
                self.decide(&mut next, rules);
            } else if self.row == Row::Waits {
                // It comes back.
                return;
            }
            next.forget_promise(rules);
        }
        visit(next);
    }

    fn step_executor(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let early = rules == Some(Fault::LooksBeforeAccepting);
        let by_request = |next: &mut World, request, otherwise| match request {
            Request::None => otherwise,
            Request::Open => At::LetGo(Outcome::Leave),
            Request::Committed => {
                next.written &= rules != Some(Fault::RemovesEarly);
                At::LetGo(Outcome::Cancel)
            }
        };
        let holds_row = self.locked_by == me as u8;
        if holds_row && self.failures > 0 && self.executors[me] != At::RollBack {
            let mut struck = *self;
            struck.failures -= 1;
            struck.executors[me] = At::RollBack;
            if rules != Some(Fault::DiesUndecided) {
                struck.standing[me] = Standing::Accepted;
            }
            visit(struck);
        }
        next.executors[me] = match self.executors[me] {
            At::Idle => {
                let may_claim = self.is_read || rules == Some(Fault::ClaimsUnread);
                if !self.announced || !may_claim {
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
            At::LookBefore => {
                visit(World {
                    executors: self.with(me, At::LetGo(Outcome::GiveUp)),
                    ..*self
                });
                by_request(&mut next, self.asked(rules), At::Run)
            }
            At::Run if early => At::LookAfter,
            At::Run => At::Accept,
            At::Accept => {
                next.standing[me] = Standing::Accepted;
                if early || rules == Some(Fault::LooksBeforeOnly) {
                    At::LetGo(Outcome::Complete)
                } else {
                    At::LookAfter
                }
            }
            At::LookAfter => {
                let otherwise = if early {
                    At::Accept
                } else {
                    At::LetGo(Outcome::Complete)
                };
                by_request(&mut next, self.asked(rules), otherwise)
            }
            At::LetGo(outcome) => {
                if rules != Some(Fault::GivesUpUndecided) {
                    next.standing[me] = Standing::Accepted;
                }
                At::Commit(outcome)
            }
            At::Commit(outcome) => {
                let outcome = match outcome {
                    Outcome::Cancel if !self.is_promised(rules) => Outcome::GiveUp,
                    outcome => outcome,
                };
                next.locked_by = NOBODY;
                next.announced |= outcome == Outcome::GiveUp;
                next.row = match outcome {
                    Outcome::Complete => Row::Completed,
                    Outcome::Cancel => Row::Cancelled,
                    Outcome::Leave | Outcome::GiveUp => Row::Waits,
                };
                if outcome == Outcome::Cancel {
                    next.written &= rules == Some(Fault::RemovesNothing);
                }
                At::Release(outcome)
            }
            At::RollBack => {
                // The watermark is put back.
                next.locked_by = NOBODY;
                next.announced = true;
                visit(World {
                    executors: self.with(me, At::Blame),
                    ..next
                });
                At::Release(Outcome::GiveUp)
            }
            At::Blame if rules == Some(Fault::BlamesUnlocked) => match self.request() {
                Request::None => At::Discard,
                _ => At::Release(Outcome::GiveUp),
            },
            At::Blame | At::Discard if !self.free_row() => At::Release(Outcome::GiveUp),
            At::Blame => {
                next.locked_by = me as u8;
                At::LookBlamed
            }
            At::LookBlamed => match self.request() {
                Request::None => At::Commit(Outcome::Complete),
                _ => At::Commit(Outcome::GiveUp),
            },
            At::Discard => {
                next.locked_by = me as u8;
                At::Commit(Outcome::Complete)
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
                if self.request() == Request::Committed {
                    if self.row == Row::Waits && !self.free_row() {
                        next.scheduler = true;
                    } else {
                        if self.free_row() {
                            self.decide(&mut next, rules);
                        }
                        next.forget_promise(rules);
                    }
                }
                At::Announce(outcome)
            }
            At::Announce(outcome) => {
                if outcome == Outcome::Leave
                    && self.request() == Request::None
                    && rules != Some(Fault::LeavesForGood)
                {
                    next.announced = true;
                }
                At::Idle
            }
        };
        visit(next);
    }

    fn step_recall(&self, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let (mut next, cell) = (*self, OWN + 1 + me);
        next.recalls[me] = match self.recalls[me] {
            Recall::Idle => {
                if self.is_read {
                    if self.sweeps == 0 {
                        return;
                    }
                    next.sweeps -= 1;
                }
                // What is asked for by a transaction that may roll back yet is asked for by this one, too.
                if self.written && self.request() != Request::Committed {
                    next.is_read |= me == AT_ONCE && rules == Some(Fault::SaysReadFirst);
                    Recall::Ask
                } else {
                    next.is_read = true;
                    Recall::Idle
                }
            }
            Recall::Ask if rules == Some(Fault::RecallsUnchecked) => {
                next.requests[cell] = Request::Committed;
                Recall::Commit
            }
            Recall::Ask if me == AT_ONCE => {
                next.requests[cell] = Request::Committed;
                next.scheduler = true;
                Recall::LookAgain
            }
            Recall::Ask => {
                next.requests[cell] = Request::Open;
                Recall::LookAgain
            }
            Recall::LookAgain if self.written && me == AT_ONCE => {
                next.is_read = true;
                Recall::Idle
            }
            Recall::LookAgain if self.written => Recall::Commit,
            Recall::LookAgain => Recall::GivesUp,
            Recall::Commit => {
                // It fails.
                let mut failed = *self;
                failed.recalls[me] = Recall::GivesUp;
                failed.is_read |= rules == Some(Fault::RecallsWithoutCommit);
                visit(failed);
                next.requests[cell] = Request::Committed;
                next.is_read = true;
                next.scheduler = true;
                Recall::Idle
            }
            Recall::GivesUp if me == AT_ONCE => {
                next.requests[cell] = Request::None;
                if rules == Some(Fault::TakesBackAnothers) {
                    next.free_committed();
                }
                if rules == Some(Fault::TakesBackInSilence) {
                    next.is_read = true;
                    Recall::Idle
                } else {
                    Recall::Announces
                }
            }
            Recall::GivesUp => {
                next.requests[cell] = Request::None;
                Recall::Announces
            }
            Recall::Announces => {
                next.announced = true;
                next.is_read |= me == AT_ONCE;
                Recall::Idle
            }
        };
        visit(next);
    }

    fn step_canceller(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let own = self.requests[OWN];
        next.canceller = match self.canceller {
            Asking::Look => match self.standing() {
                Standing::Undecided => Asking::Ask,
                // It is being claimed: look again in a moment.
                Standing::NotHeld if self.locked_by != NOBODY => return,
                _ => Asking::Lock,
            },
            Asking::Ask => {
                next.requests[OWN] = Request::Open;
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
                next.requests[OWN] = Request::None;
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
                let prepares = if self.locked_by == CANCELLER {
                    Asking::Prepared
                } else {
                    Asking::Prepares
                };
                visit(World {
                    canceller: prepares,
                    ..*self
                });
                if self.locked_by == CANCELLER {
                    next.locked_by = NOBODY;
                    next.row = Row::Cancelled;
                    Asking::Over(Some(true))
                } else {
                    next.written = rules != Some(Fault::WritesNothingDown);
                    Asking::Promises
                }
            }
            Asking::Promises => {
                next.requests[OWN] = Request::Committed;
                next.scheduler |= self.standing() == Standing::NotHeld;
                Asking::Over(Some(true))
            }
            Asking::Prepares if rules == Some(Fault::PreparesUnlocked) && own == Request::Open => {
                next.requests[OWN] = Request::None;
                Asking::Prepares
            }
            Asking::Prepares if self.row != Row::Waits => Asking::Over(Some(true)),
            Asking::Prepares => {
                if !self.free_row() {
                    return;
                }
                next.locked_by = CANCELLER;
                Asking::Settles
            }
            Asking::Settles => {
                next.requests[OWN] = Request::None;
                Asking::Prepared
            }
            Asking::Prepared => {
                next.locked_by = NOBODY;
                visit(World {
                    row: Row::Cancelled,
                    canceller: Asking::Over(Some(true)),
                    ..next
                });
                // The sweep announces it.
                next.announced = true;
                Asking::Over(None)
            }
            Asking::GivesUp => {
                next.requests[OWN] = Request::None;
                if rules == Some(Fault::AnnouncesBeforeGivingUp) {
                    Asking::Over(None)
                } else {
                    Asking::Announces
                }
            }
            Asking::Announces => {
                next.announced = true;
                if own == Request::Open {
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
