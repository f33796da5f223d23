//! Every interleaving of the count of a queue's leases (core/src/lease_count.rs): claims that add leases, commits that end some, and
//! the look at the table by who finds nothing known. And of broken variants, each of which must be caught.
//!
//! ```text
//! claim     takes the queue's lock alone. Where no count is known it reads the word, counts the rows of a snapshot, and stores what it
//!           has found if the word is still the same; else what it has found is its own. Leases as many as there is room for.
//!           COMMIT, adds them to the word, lets go of the lock; or ROLLBACK.
//! end       deletes a lease. Asks for the round, COMMIT, takes it off the word; or ROLLBACK. A prepared one commits at some time, and
//!           its COMMIT PREPARED makes the word unknown.
//! definer   changes the queue, or gives the word up for some other reason: unknown.
//! ```
//!
//! Steps are atomic where the server makes them so: an atomic operation, a commit, a snapshot. Checked of every world: there are no
//! more leases than the limit; and of every world where nobody is under way: what is known is so.

#[path = "../common/mod.rs"]
mod common;

use pushy_core::lease_count::LeaseCount;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Leases that end are taken off whatever the round.
    EndsBlindly,
    /// The round is asked for after the commit.
    AsksLate,
    /// They are taken off before the commit.
    EndsEarly,
    /// Who ends one while nothing is known says nothing.
    EndsSilently,
    /// What was counted is stored whatever happened meanwhile.
    StoresBlindly,
    /// And begins no round.
    KeepsRound,
    /// A claim adds its leases when it has let go of the lock.
    AddsLate,
    /// Or when it is rolled back, too.
    AddsWhatNeverWas,
    /// COMMIT PREPARED says nothing.
    PreparesSilently,
    /// Two claims count at the same time.
    ClaimsBesideOthers,
}

const FAULTS: [Fault; 10] = [
    Fault::EndsBlindly,
    Fault::AsksLate,
    Fault::EndsEarly,
    Fault::EndsSilently,
    Fault::StoresBlindly,
    Fault::KeepsRound,
    Fault::AddsLate,
    Fault::AddsWhatNeverWas,
    Fault::PreparesSilently,
    Fault::ClaimsBesideOthers,
];

type Rules = Option<Fault>;

#[derive(Clone, Copy, Debug)]
struct Case {
    limit: u8,
    /// Leases that there are at first.
    leases: u8,
    /// Whether those are known of.
    known: bool,
    /// The first of those who end leases is prepared.
    prepares: bool,
    /// Somebody makes the count unknown.
    doubts: bool,
}

const PLAIN: Case = Case {
    limit: 2,
    leases: 2,
    known: false,
    prepares: false,
    doubts: false,
};

const CASES: [Case; 5] = [
    PLAIN,
    Case {
        known: true,
        ..PLAIN
    },
    Case {
        prepares: true,
        ..PLAIN
    },
    Case {
        known: true,
        doubts: true,
        ..PLAIN
    },
    Case {
        limit: 1,
        leases: 1,
        doubts: true,
        ..PLAIN
    },
];

/// How often each claims.
const CLAIMS: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claimer {
    Idle,
    /// Holds the lock, and has read the word.
    Reads(LeaseCount),
    /// Has counted the rows since.
    Counted(LeaseCount, u8),
    /// Knows how many leases there are.
    Knows(u8),
    /// Has committed so many, and not added them.
    Committed(u8),
    /// Has let go of the lock before (a fault).
    Late(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ender {
    Idle,
    /// Was told the round.
    Asked(u32),
    Prepared,
    /// Has committed, and is to say so.
    Committed(u32),
    /// The same of a prepared one.
    CommittedPrepared,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    word: LeaseCount,
    /// Leases as committed, and how many of them somebody is about to end.
    leases: u8,
    ending: u8,
    locked: bool,
    claimers: [Claimer; 2],
    claims: [u8; 2],
    enders: [Ender; 2],
    doubts: bool,
}

impl World {
    fn new(case: Case) -> World {
        World {
            word: LeaseCount::of(0, case.known.then_some(u32::from(case.leases))),
            leases: case.leases,
            ending: 0,
            locked: false,
            claimers: [Claimer::Idle; 2],
            claims: [CLAIMS; 2],
            enders: [Ender::Idle; 2],
            doubts: case.doubts,
        }
    }

    fn is_bad(&self, case: Case) -> bool {
        let rests = |ender: &Ender| matches!(ender, Ender::Idle | Ender::Prepared | Ender::Done);
        let is_at_rest = self
            .claimers
            .iter()
            .all(|claimer| *claimer == Claimer::Idle)
            && self.enders.iter().all(rests);
        self.leases > case.limit
            || is_at_rest
                && self
                    .word
                    .known()
                    .is_some_and(|known| known != u32::from(self.leases))
    }

    fn successors(&self, case: Case, rules: Rules, visit: &mut dyn FnMut(World)) {
        for me in 0..2 {
            self.step_claimer(case, rules, me, visit);
            self.step_ender(case, rules, me, visit);
        }
        if self.doubts {
            visit(World {
                word: self.word.forgotten(),
                doubts: false,
                ..*self
            });
        }
    }

    fn step_claimer(&self, case: Case, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        match self.claimers[me] {
            Claimer::Idle => {
                let is_free = !self.locked || rules == Some(Fault::ClaimsBesideOthers);
                if self.claims[me] == 0 || !is_free {
                    return;
                }
                next.claims[me] -= 1;
                next.locked = true;
                next.claimers[me] = match self.word.known() {
                    Some(known) => Claimer::Knows(known as u8),
                    None => Claimer::Reads(self.word),
                };
            }
            Claimer::Reads(before) => next.claimers[me] = Claimer::Counted(before, self.leases),
            Claimer::Counted(before, count) => {
                if self.word == before || rules == Some(Fault::StoresBlindly) {
                    next.word = match rules {
                        Some(Fault::KeepsRound) => {
                            LeaseCount::of(self.word.round(), Some(u32::from(count)))
                        }
                        _ => self.word.counted(u32::from(count)),
                    };
                }
                next.claimers[me] = Claimer::Knows(count);
            }
            Claimer::Knows(known) => {
                next.claimers[me] = Claimer::Idle;
                next.locked = false;
                let free = case.limit.saturating_sub(known);
                if rules == Some(Fault::AddsWhatNeverWas) {
                    next.word = next.word.added(u32::from(free));
                }
                // ROLLBACK, or nothing to do.
                visit(next);
                if free == 0 {
                    return;
                }
                next = *self;
                next.leases += free;
                next.claimers[me] = Claimer::Committed(free);
                if rules == Some(Fault::AddsLate) {
                    next.locked = false;
                    next.claimers[me] = Claimer::Late(free);
                }
            }
            Claimer::Committed(more) | Claimer::Late(more) => {
                next.word = self.word.added(u32::from(more));
                next.claimers[me] = Claimer::Idle;
                if rules != Some(Fault::AddsLate) {
                    next.locked = false;
                }
            }
        }
        visit(next);
    }

    fn step_ender(&self, case: Case, rules: Rules, me: usize, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let end = |world: &mut World, round: u32| {
            world.word = match (rules, world.word.known()) {
                (Some(Fault::EndsBlindly), Some(_)) => world.word.ended(1, world.word.round()),
                (Some(Fault::EndsSilently), None) => world.word,
                _ => world.word.ended(1, round),
            };
        };
        match self.enders[me] {
            Ender::Idle => {
                if self.ending == self.leases {
                    return;
                }
                next.ending += 1;
                next.enders[me] = if case.prepares && me == 0 {
                    Ender::Prepared
                } else {
                    Ender::Asked(self.word.round())
                };
                if rules == Some(Fault::EndsEarly) {
                    end(&mut next, self.word.round());
                }
            }
            Ender::Asked(round) => {
                // ROLLBACK.
                next.ending -= 1;
                next.enders[me] = Ender::Done;
                visit(next);
                next.leases -= 1;
                next.enders[me] = Ender::Committed(round);
            }
            Ender::Prepared => {
                next.ending -= 1;
                next.leases -= 1;
                next.enders[me] = Ender::CommittedPrepared;
            }
            Ender::Committed(round) => {
                let round = match rules {
                    Some(Fault::AsksLate) => self.word.round(),
                    _ => round,
                };
                if rules != Some(Fault::EndsEarly) {
                    end(&mut next, round);
                }
                next.enders[me] = Ender::Done;
            }
            Ender::CommittedPrepared => {
                if rules != Some(Fault::PreparesSilently) {
                    next.word = self.word.forgotten();
                }
                next.enders[me] = Ender::Done;
            }
            Ender::Done => return,
        }
        visit(next);
    }
}

fn explore(case: Case, rules: Rules) -> (usize, bool) {
    common::explore(
        World::new(case),
        |world| world.is_bad(case),
        |world, mut visit| world.successors(case, rules, &mut visit),
    )
}

#[test]
fn there_are_never_more_leases_than_the_limit_and_what_is_known_of_them_is_so() {
    common::assert_holds(&CASES, |case| explore(case, None));
}

#[test]
fn each_broken_variant_leases_too_many_or_knows_of_a_wrong_number() {
    common::assert_caught(&FAULTS, &CASES, |case, fault| explore(case, Some(fault)).1);
}
