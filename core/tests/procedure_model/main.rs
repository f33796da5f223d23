//! Every interleaving of the life of a procedure's job: it is held by a lease of its executor, because its transactions come and go,
//! and put back by whoever finds that the executor has ended without a word. And of broken variants, each of which must be caught.
//!
//! ```text
//! executor    takes a permit of the queue, puts back what was lost, takes the announcement of a ready job, locks
//!             its row, publishes that it has the job in its batch, and the token of the lease, and commits that. Leaves the job alone where a verdict on
//!             it is not carried out. Runs it. Locks the row, looks whether the lease is still its own, accepts the outcome, then
//!             reads the requests for cancels; commits what came of it, or is rolled back and tries again, or gives up. Clears its
//!             batch, takes its token back, says that a lease may be lost if it has not settled it, returns the permit. It may be ended at every point,
//!             and does the last three then.
//! recoverer   (the scheduler, and each executor) reads how much was lost, then which leases there are; passes over those that are
//!             somebody's by their token; locks the row, looks again at lease and tokens, puts the job back, commits, announces it, and
//!             notes that so much is recovered.
//! canceller   writes its request, then looks whether an executor has the job and has accepted its outcome. Not accepted: the
//!             request is a promise once it commits; accepted, or held by nobody: takes it back, locks the row, and cancels, or,
//!             where an executor has come to hold it meanwhile, asks once more. Who finds a committed promise for a job that nobody holds carries it out. Later somebody makes the job run again.
//! worker      outside, while the queue has no handler: claims the ready job, and completes it. A verdict that comes later is nothing to
//!             it, and is dropped.
//! crash       open transactions are gone, and shared memory. Who ran is charged, before the job runs again.
//! ```
//!
//! Steps are atomic where the server makes them so: a row lock with the look at the row, the end of a transaction, an atomic operation
//! on shared memory.

#[path = "../common/mod.rs"]
mod common;
mod executor;
mod others;
mod world;

use world::World;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The token is published after the commit of the lease.
    PublishesLate,
    /// It is taken back when the procedure has returned, before the settlement.
    ClearsEarly,
    /// An executor that is ended does not say that its lease is lost.
    EndsSilently,
    /// Nor one that gives up.
    GivesUpSilently,
    /// It is said before the token is taken back.
    SaysLostEarly,
    /// The permit is returned before it is said.
    ReturnsPermitEarly,
    /// An executor claims without putting back what was lost.
    ClaimsBehind,
    /// A recoverer looks at tokens before it has the row, and not again.
    RecoversBlindly,
    /// It reads how much was lost after it has looked.
    ReadsLate,
    /// It does not announce what it has put back.
    PutsBackSilently,
    /// After a start it believes that nothing was lost.
    StartsBlindly,
    /// A settlement does not ask whether the lease is still its own.
    SettlesBlindly,
    /// It does not ask for cancels.
    IgnoresCancels,
    /// It asks for them before it accepts the outcome.
    AsksEarly,
    /// A job runs though a verdict on it is not carried out.
    RunsUnsettled,
    /// Who has the job in its batch is taken for the holder of the lease.
    HeldByJob,
    /// A caller that has locked the row cancels the job, whoever holds it by then.
    CancelsBlindly,
    /// A verdict charges the job, whoever has claimed it since.
    JudgesBlindly,
}

const FAULTS: [Fault; 18] = [
    Fault::PublishesLate,
    Fault::ClearsEarly,
    Fault::EndsSilently,
    Fault::GivesUpSilently,
    Fault::SaysLostEarly,
    Fault::ReturnsPermitEarly,
    Fault::ClaimsBehind,
    Fault::RecoversBlindly,
    Fault::ReadsLate,
    Fault::PutsBackSilently,
    Fault::StartsBlindly,
    Fault::SettlesBlindly,
    Fault::IgnoresCancels,
    Fault::AsksEarly,
    Fault::RunsUnsettled,
    Fault::HeldByJob,
    Fault::CancelsBlindly,
    Fault::JudgesBlindly,
];

type Rules = Option<Fault>;

/// What is explored.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The queue's concurrency.
    limit: u8,
    /// Executors are ended so often.
    ends: u8,
    /// Settlements are rolled back, or given up.
    busy: u8,
    /// Somebody cancels the job, and another makes it run again.
    cancels: bool,
    /// The server crashes so often.
    crashes: u8,
    /// The queue has no handler for a while, and a worker outside claims the job: so often.
    moves: u8,
}

const CASES: [Case; 9] = [
    Case {
        limit: 1,
        ends: 2,
        busy: 0,
        cancels: false,
        crashes: 0,
        moves: 0,
    },
    Case {
        limit: 1,
        ends: 1,
        busy: 1,
        cancels: false,
        crashes: 0,
        moves: 0,
    },
    Case {
        limit: 1,
        ends: 0,
        busy: 2,
        cancels: true,
        crashes: 0,
        moves: 0,
    },
    Case {
        limit: 1,
        ends: 1,
        busy: 0,
        cancels: true,
        crashes: 0,
        moves: 0,
    },
    Case {
        limit: 1,
        ends: 1,
        busy: 0,
        cancels: false,
        crashes: 2,
        moves: 0,
    },
    Case {
        limit: 2,
        ends: 1,
        busy: 0,
        cancels: false,
        crashes: 1,
        moves: 0,
    },
    Case {
        limit: 2,
        ends: 0,
        busy: 1,
        cancels: true,
        crashes: 0,
        moves: 0,
    },
    Case {
        limit: 1,
        ends: 0,
        busy: 0,
        cancels: false,
        crashes: 1,
        moves: 2,
    },
    Case {
        limit: 1,
        ends: 1,
        busy: 1,
        cancels: false,
        crashes: 0,
        moves: 1,
    },
];

fn explore(case: Case, rules: Rules) -> (usize, bool) {
    common::explore(World::new(case), World::is_bad, |world, visit| {
        world.successors(rules, visit)
    })
}

#[test]
fn no_procedure_runs_twice_at_a_time_is_lost_or_outlives_its_cancel() {
    common::assert_holds(&CASES, |case| explore(case, None));
}

#[test]
fn each_broken_variant_loses_a_job_or_runs_it_where_it_must_not() {
    common::assert_caught(&FAULTS, &CASES, |case, fault| explore(case, Some(fault)).1);
}
