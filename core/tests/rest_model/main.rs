//! Every interleaving of the protocol by which `jobs_wait` learns from shared memory that a queue rests
//! (src/shared/queue/queue_slot.rs, src/job/wait/unfinished.rs): whoever is told so must not have missed a job that was unfinished from
//! the beginning of the look to its end. And of broken variants, each of which must be caught.

mod canceller;
#[path = "../common/mod.rs"]
mod common;
mod executor;
mod looker;
mod mover;
mod sweep;
mod world;

use world::World;

/// What is done in another order than it should be, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A commit does not say that it will announce something.
    CommitsInSilence,
    /// It says that it has announced before it does.
    EndsBeforeAnnouncing,
    /// A permit is counted after the watermark was taken.
    CountsPermitLate,
    /// The permits are not compared.
    IgnoresPermits,
    /// A permit is returned before the watermark is put back.
    ReturnsPermitEarly,
    /// A claim does not say that it passed over a locked row.
    PassesOverInSilence,
    /// It says so after it has returned its permit.
    PassesOverLate,
    /// The table is looked into first, and then once more is not asked whether the queue rests.
    AsksOnce,
    /// It is asked for the first time after the look.
    AsksLate,
    /// The scheduler takes the request for a sweep before it says that it sweeps.
    SweepsLate,
    /// What was passed over is counted after the look that found nothing.
    CountsPassedOverLate,
    /// Whoever looks does not ask for transactions of whose end nobody is told.
    IgnoresUntold,
    /// One of them is forgotten before the sweep is asked for.
    ForgetsEarly,
    /// Those that found no place count as looked for before the sweep is asked for that finds them.
    SettlesEarly,
}

const FAULTS: [Fault; 14] = [
    Fault::CommitsInSilence,
    Fault::EndsBeforeAnnouncing,
    Fault::CountsPermitLate,
    Fault::IgnoresPermits,
    Fault::ReturnsPermitEarly,
    Fault::PassesOverInSilence,
    Fault::PassesOverLate,
    Fault::AsksOnce,
    Fault::AsksLate,
    Fault::SweepsLate,
    Fault::CountsPassedOverLate,
    Fault::IgnoresUntold,
    Fault::ForgetsEarly,
    Fault::SettlesEarly,
];

/// Who is at work beside the executor and the one who looks: all at once would be too many worlds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Others {
    /// One enqueues, one makes ready what waits for its next attempt.
    Movers,
    /// One enqueues, one locks a job to cancel it.
    Canceller,
    /// One commits what was prepared, and the scheduler sweeps.
    Sweep,
    /// The same, and what it makes ready was noted when it was prepared.
    Noted,
    /// A subscription's worker prepares and commits, of which nobody is told; the launcher sees it, and the scheduler sweeps.
    Untold,
    /// The same, noted.
    UntoldNoted,
    /// The same, and there is no place for a note.
    Placeless,
}

const OTHERS: [Others; 7] = [
    Others::Movers,
    Others::Canceller,
    Others::Sweep,
    Others::Noted,
    Others::Untold,
    Others::UntoldNoted,
    Others::Placeless,
];

/// What a model is of.
#[derive(Clone, Copy)]
struct Rules {
    others: Others,
    fault: Option<Fault>,
}

impl Rules {
    /// How many claims there are at most.
    fn claims(&self) -> u8 {
        2
    }

    /// How many looks: what one of them says of rows that were passed over counts in the next.
    fn looks(&self) -> u8 {
        if self.others == Others::Canceller {
            2
        } else {
            1
        }
    }
}

/// How many worlds there are, and whether a job is missed in one of them.
fn explore(rules: &Rules) -> (usize, bool) {
    common::explore(
        World::new(),
        |world| world.missed_a_job,
        |world, mut visit| world.successors(rules, &mut visit),
    )
}

#[test]
fn whoever_is_told_that_a_queue_rests_has_missed_nothing() {
    let fault = None;
    common::assert_holds(&OTHERS, |others| explore(&Rules { others, fault }));
}

#[test]
fn each_broken_variant_misses_a_job() {
    common::assert_caught(&FAULTS, &OTHERS, |others, fault| {
        let fault = Some(fault);
        explore(&Rules { others, fault }).1
    });
}
