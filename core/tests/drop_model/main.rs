//! Every interleaving of a queue_drop without force and of transactions that enqueue (src/shared/queue/queue_slot.rs, `close` and
//! `takes_jobs_of`): no job commits into a queue that is gone. And of broken variants, each of which must be caught.

#[path = "../common/mod.rs"]
mod common;

const SESSIONS: usize = 4;

/// What is done in another order than it should be, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// Who enqueues asks whether the queue is open before it says that it commits.
    AsksEarly,
    /// It does not ask.
    AsksNever,
    /// It says that it is through before it has committed.
    EndsEarly,
    /// The table is looked at before the queue is closed.
    LooksEarly,
    /// Who drops does not mind those that commit.
    IgnoresCommits,
}

const FAULTS: [Fault; 5] = [
    Fault::AsksEarly,
    Fault::AsksNever,
    Fault::EndsEarly,
    Fault::LooksEarly,
    Fault::IgnoresCommits,
];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    Begin,
    Ask,
    Commit,
    End,
    Close,
    Mind,
    Look,
}

fn enqueue(fault: Option<Fault>) -> &'static [Step] {
    match fault {
        Some(Fault::AsksEarly) => &[Step::Ask, Step::Begin, Step::Commit, Step::End],
        Some(Fault::AsksNever) => &[Step::Begin, Step::Commit, Step::End],
        Some(Fault::EndsEarly) => &[Step::Begin, Step::Ask, Step::End, Step::Commit],
        _ => &[Step::Begin, Step::Ask, Step::Commit, Step::End],
    }
}

fn drop_queue(fault: Option<Fault>) -> &'static [Step] {
    match fault {
        Some(Fault::LooksEarly) => &[Step::Look, Step::Close, Step::Mind, Step::Commit],
        Some(Fault::IgnoresCommits) => &[Step::Close, Step::Look, Step::Commit],
        _ => &[Step::Close, Step::Mind, Step::Look, Step::Commit],
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
struct World {
    announcing: u8,
    closing: bool,
    committed: u8,
    gone: bool,
    /// Steps done by those who enqueue; None: its transaction was rolled back.
    sessions: [Option<usize>; SESSIONS],
    dropper: usize,
    /// Rolled back so far: it may be tried again.
    refused: u8,
}

fn session(world: &World, who: usize, fault: Option<Fault>) -> Option<World> {
    let done = world.sessions[who]?;
    let step = *enqueue(fault).get(done)?;
    let mut next = *world;
    next.sessions[who] = Some(done + 1);
    match step {
        Step::Begin => next.announcing += 1,
        Step::Ask if world.closing || world.gone => {
            next.sessions[who] = None;
            let has_begun = enqueue(fault)[..done].contains(&Step::Begin);
            next.announcing -= u8::from(has_begun);
        }
        Step::Commit => next.committed += 1,
        Step::End => next.announcing -= 1,
        _ => {}
    }
    Some(next)
}

fn dropper(world: &World, fault: Option<Fault>) -> Option<World> {
    let step = *drop_queue(fault).get(world.dropper)?;
    let mut next = *world;
    next.dropper += 1;
    let refused = match step {
        Step::Close => {
            next.closing = true;
            false
        }
        Step::Mind => world.announcing != 0,
        Step::Look => world.committed != 0,
        _ => {
            next.gone = true;
            false
        }
    };
    if refused {
        next.closing = false;
        next.dropper = if world.refused == 0 { 0 } else { usize::MAX };
        next.refused = 1;
    }
    Some(next)
}

fn explore(fault: Option<Fault>) -> (usize, bool) {
    let first = World {
        sessions: [Some(0); SESSIONS],
        ..World::default()
    };
    common::explore(
        first,
        |world| world.gone && world.committed > 0,
        |world, found| {
            (0..SESSIONS)
                .filter_map(|who| session(world, who, fault))
                .chain(dropper(world, fault))
                .for_each(found);
        },
    )
}

#[test]
fn no_job_commits_into_a_queue_that_is_gone() {
    common::assert_holds(&[()], |()| explore(None));
}

#[test]
fn each_fault_is_caught() {
    common::assert_caught(&FAULTS, &[()], |(), fault| explore(Some(fault)).1);
}
