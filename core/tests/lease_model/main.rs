//! Every interleaving of the life of a lease: claims, extensions, completions, failures, releases, cancels, expiries, deaths of
//! workers and crashes of the server, and of broken variants, each of which must be caught.
//!
//! ```text
//! worker      takes the announcement of a ready job, takes the time, locks its row (passing over a locked one), and stores a fresh token
//!             and the end of the lease. COMMIT, then the end is announced to the scheduler; ROLLBACK, then the job is announced again.
//!             The answer may be lost on its way. Asked again under the same name, a job that the name holds is given back
//!             (uncharged, counted) and claimed once more, with another token. A holder completes, fails, releases or extends:
//!             it locks the row, and if the row has its token, changes it. It may die, or sleep through its lease, at every point.
//! canceller   locks the row of a job, whoever has leased it, and cancels it.
//! scheduler   sleeps until the first end of a lease that it knows of, or that was announced to it. Takes the announcement,
//!             then reads the leases that are over; locks each, passing over a locked one (and comes back), looks again
//!             whether it is over, and charges the attempt. Then reads when the next one ends.
//! connection  a lease may end with its holder's session instead of at a time. The session enters itself in shared memory
//!             before it commits the claim; at its end it is removed, and then the scheduler is called. If it ended with the server,
//!             the job is given back, uncharged but counted.
//! clock       may be set back. Then the launcher tells the scheduler that nothing it knows of is so: it looks at all leases, and one that
//!             was claimed or extended later than now lasts from now on as long as it was said to.
//! crash       transactions that were open are gone, and shared memory; the scheduler that starts afterwards reads all leases.
//! ```
//!
//! Steps are atomic where the server makes them so: a row lock with the look at the row, the end of a transaction, an atomic
//! operation on shared memory. Checked of every world: one completion at most, and none of a job that was cancelled or is to run
//! again; no lease ends before the time that its holder was promised; no more claims than attempts and give-backs allow. And of
//! every world at rest: a ready job is announced, the scheduler comes for each lease when it ends, and none lasts for longer than it was said
//! to by a clock that was set back.

#[path = "../common/mod.rs"]
mod common;
mod scheduler;
mod worker;
mod world;

use world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The end of a lease is announced before the claim is committed.
    AnnouncesEarly,
    /// Or not at all.
    AnnouncesNothing,
    /// A claim that is rolled back does not announce the job again.
    SilentRollback,
    /// What expires, fails or is released is ready, and not announced.
    SilentReturn,
    /// A cancel that is rolled back does not announce the ready job that it held.
    SilentCancelRollback,
    /// The scheduler takes the announcement after it has read.
    TakesLate,
    /// It expires what it has read, without a second look at the locked row.
    ExpiresBlindly,
    /// It forgets a lease whose row somebody had locked.
    ForgetsLocked,
    /// It sleeps on without reading when the next lease ends.
    ForgetsNext,
    /// After a crash it reads nothing.
    StartsBlindly,
    /// A shorter lease is not announced.
    ShortensSilently,
    /// A completion asks whose name is in the row, not which token.
    FencesByName,
    /// An extension does not ask for the token.
    ExtendsBlindly,
    /// Who asks again gets the token of the claim before.
    KeepsToken,
    /// Asking again costs nothing.
    AsksForFree,
    /// A cancel leaves the token in the row.
    CancelLeavesToken,
    /// A session enters itself after the commit of its claim.
    EntersLate,
    /// A session calls the scheduler before it is removed.
    CallsEarly,
    /// What a crash gives back is never charged.
    GivesBackForFree,
    /// The launcher says nothing of a clock that was set back.
    JumpsSilently,
    /// It says so only where an end is announced, or the scheduler sleeps until one.
    TellsWhoWaits,
    /// The scheduler sees to none of what was claimed later than now.
    KeepsFuture,
    /// It forgets one whose row somebody had locked.
    ForgetsLockedFuture,
    /// How long a lease was said to last counts from its claim.
    CountsFromClaim,
    /// A claim that commits when the clock was set back meanwhile says only when its lease ends.
    CommitsLater,
}

const FAULTS: [Fault; 25] = [
    Fault::AnnouncesEarly,
    Fault::AnnouncesNothing,
    Fault::SilentRollback,
    Fault::SilentReturn,
    Fault::SilentCancelRollback,
    Fault::TakesLate,
    Fault::ExpiresBlindly,
    Fault::ForgetsLocked,
    Fault::ForgetsNext,
    Fault::StartsBlindly,
    Fault::ShortensSilently,
    Fault::FencesByName,
    Fault::ExtendsBlindly,
    Fault::KeepsToken,
    Fault::AsksForFree,
    Fault::CancelLeavesToken,
    Fault::EntersLate,
    Fault::CallsEarly,
    Fault::GivesBackForFree,
    Fault::JumpsSilently,
    Fault::TellsWhoWaits,
    Fault::KeepsFuture,
    Fault::ForgetsLockedFuture,
    Fault::CountsFromClaim,
    Fault::CommitsLater,
];

type Rules = Option<Fault>;

/// What is explored.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// Leases end with the connection, not at a time.
    bound: bool,
    /// Both workers say the same name.
    same_name: bool,
    /// Holders extend their leases.
    extends: bool,
    /// Somebody cancels the job.
    cancels: bool,
    /// Crashes of the server, and jumps of the clock backwards.
    crashes: u8,
    jumps: u8,
}

const TIMED: Case = Case {
    bound: false,
    same_name: false,
    extends: false,
    cancels: false,
    crashes: 0,
    jumps: 0,
};

const BOUND: Case = Case {
    bound: true,
    ..TIMED
};

const CASES: [Case; 11] = [
    Case {
        cancels: true,
        ..TIMED
    },
    Case {
        crashes: 1,
        ..TIMED
    },
    Case { jumps: 1, ..TIMED },
    Case {
        same_name: true,
        ..TIMED
    },
    Case {
        cancels: true,
        ..BOUND
    },
    Case {
        crashes: 1,
        ..BOUND
    },
    Case {
        same_name: true,
        ..BOUND
    },
    // More crashes than a job may be given back.
    Case {
        crashes: 2,
        ..BOUND
    },
    Case {
        extends: true,
        ..TIMED
    },
    Case {
        extends: true,
        jumps: 1,
        ..TIMED
    },
    Case {
        cancels: true,
        jumps: 1,
        ..TIMED
    },
];

fn explore(case: Case, rules: Rules) -> (usize, bool) {
    common::explore(
        World::new(case),
        |world| world.is_bad(case),
        |world, mut visit| world.successors(case, rules, &mut visit),
    )
}

#[test]
fn no_lease_is_cut_short_doubled_or_forgotten() {
    common::assert_holds(&CASES, |case| explore(case, None));
}

#[test]
fn each_broken_variant_loses_a_job_or_gives_it_to_two() {
    common::assert_caught(&FAULTS, &CASES, |case, fault| explore(case, Some(fault)).1);
}
