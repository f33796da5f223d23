//! Every interleaving of transactions that create and drop the extension and of workers that look whether it is there
//! (core/src/presence.rs): when all are through, shared memory does not say that an extension
//! is gone which is there, and a commit that was heard is not taken back by a look that is older. And of broken variants, each of
//! which must be caught.

#[path = "../common/mod.rs"]
mod common;

/// What is done in another order than it should be, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A look says what it has found, whatever was said meanwhile.
    SaysAnyway,
    /// It minds only another presence, not that the same one was said again.
    ComparesPresence,
    /// It remembers what was said when it has looked.
    RemembersLate,
    /// A commit says it before everybody sees it.
    SaysEarly,
    /// COMMIT PREPARED, which does not know what was prepared, says nothing where the extension is said to be there.
    PreparedSaysNothing,
    /// A doubt reads what is said, and then says it again.
    DoubtsInTwoSteps,
}

const FAULTS: [Fault; 6] = [
    Fault::SaysAnyway,
    Fault::ComparesPresence,
    Fault::RemembersLate,
    Fault::SaysEarly,
    Fault::PreparedSaysNothing,
    Fault::DoubtsInTwoSteps,
];

/// One transaction after the other, because each waits for the one before it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Change {
    Create,
    CreatePrepared,
    Drop,
    /// By a way that nobody announces.
    DropUnheard,
}

const CHANGES: [[Change; 2]; 6] = [
    [Change::Create, Change::Drop],
    [Change::CreatePrepared, Change::Drop],
    [Change::Drop, Change::Create],
    [Change::Drop, Change::CreatePrepared],
    [Change::DropUnheard, Change::Create],
    [Change::DropUnheard, Change::CreatePrepared],
];

/// What is said, and how often a commit has said it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Said {
    is_there: bool,
    times: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Looker {
    Idle,
    Remembers(Said),
    /// What it remembers, and whether it has found the extension.
    Looked(Option<Said>, bool),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Doubter {
    Idle,
    Read(Said),
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    is_there: bool,
    said: Said,
    changes: [Change; 2],
    /// Steps of the changes that are done: two each.
    done: u8,
    lookers: [Looker; 2],
    /// Somebody ends a transaction that was prepared, of which nobody knows whether it brings the extension.
    doubter: Doubter,
    /// The last word of a commit, while it holds.
    heard: Option<bool>,
    is_bad: bool,
}

fn change(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let Some(change) = world.changes.get(usize::from(world.done / 2)) else {
        return;
    };
    let mut next = *world;
    next.done += 1;
    let is_there = matches!(change, Change::Create | Change::CreatePrepared);
    let sees = world.done.is_multiple_of(2) != (fault == Some(Fault::SaysEarly));
    if sees {
        next.is_there = is_there;
    } else {
        let is_heard = match change {
            Change::DropUnheard => false,
            Change::CreatePrepared if fault == Some(Fault::PreparedSaysNothing) => {
                !world.said.is_there
            }
            _ => true,
        };
        if is_heard {
            next.said = Said {
                is_there,
                times: world.said.times + 1,
            };
            next.heard = Some(is_there);
        }
    }
    found(next);
}

fn look(world: &World, looker: usize, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut next = *world;
    match world.lookers[looker] {
        Looker::Idle if fault == Some(Fault::RemembersLate) => {
            next.lookers[looker] = Looker::Looked(None, world.is_there);
        }
        Looker::Idle => next.lookers[looker] = Looker::Remembers(world.said),
        Looker::Remembers(said) => {
            next.lookers[looker] = Looker::Looked(Some(said), world.is_there);
        }
        Looker::Looked(None, is_there) => {
            next.lookers[looker] = Looker::Looked(Some(world.said), is_there);
        }
        Looker::Looked(Some(remembered), is_there) => {
            let may_say = match fault {
                Some(Fault::SaysAnyway) => true,
                Some(Fault::ComparesPresence) => world.said.is_there == remembered.is_there,
                _ => world.said == remembered,
            };
            if may_say {
                next.said.is_there = is_there;
            }
            next.lookers[looker] = Looker::Done;
        }
        Looker::Done => return,
    }
    found(next);
}

fn doubt(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut next = *world;
    let again = |said: Said| Said {
        times: said.times + 1,
        ..said
    };
    match world.doubter {
        Doubter::Idle if fault == Some(Fault::DoubtsInTwoSteps) => {
            next.doubter = Doubter::Read(world.said);
        }
        Doubter::Idle => {
            next.said = again(world.said);
            next.doubter = Doubter::Done;
        }
        Doubter::Read(said) => {
            next.said = again(said);
            next.doubter = Doubter::Done;
        }
        Doubter::Done => return,
    }
    found(next);
}

/// Whether all are through, and what is said is wrong: an extension that is there is said to be gone, or one whose drop was heard
/// is said to be there.
fn judge(world: &mut World) {
    let are_through = usize::from(world.done) == 2 * world.changes.len()
        && world.doubter == Doubter::Done
        && world.lookers.iter().all(|looker| *looker == Looker::Done);
    let is_gone_wrongly = world.is_there && !world.said.is_there;
    let is_there_wrongly = !world.is_there && world.said.is_there && world.heard == Some(false);
    world.is_bad = are_through && (is_gone_wrongly || is_there_wrongly);
}

fn explore(changes: [Change; 2], fault: Option<Fault>) -> (usize, bool) {
    let is_there = matches!(changes[0], Change::Drop | Change::DropUnheard);
    let said = Said { is_there, times: 0 };
    let first = World {
        is_there,
        said,
        changes,
        done: 0,
        lookers: [Looker::Idle; 2],
        doubter: Doubter::Idle,
        heard: None,
        is_bad: false,
    };
    common::explore(
        first,
        |world| world.is_bad,
        |world, found| {
            let mut judged = |mut next: World| {
                judge(&mut next);
                found(next);
            };
            change(world, fault, &mut judged);
            doubt(world, fault, &mut judged);
            for looker in 0..world.lookers.len() {
                look(world, looker, fault, &mut judged);
            }
        },
    )
}

#[test]
fn a_look_takes_back_no_commit() {
    common::assert_holds(&[CHANGES], |all| {
        let explored = all.map(|changes| explore(changes, None));
        let worlds = explored.iter().map(|(worlds, _)| worlds).sum();
        (worlds, explored.iter().any(|(_, bad)| *bad))
    });
}

#[test]
fn each_fault_is_caught() {
    common::assert_caught(&FAULTS, &CHANGES, |changes, fault| {
        explore(changes, Some(fault)).1
    });
}
