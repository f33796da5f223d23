//! Every interleaving of a reader of the event log (src/log/read.rs, src/log/log_snapshot.rs) and of a relay that empties parts in
//! place and uses them again (src/relay/empty.rs): no event is passed over without a resync, none that is still there by one, and
//! none comes after a later one. The same of somebody who acknowledges a cursor that a reader was given, or names it as the place to
//! read from (src/log/standing.rs), and has locked no part, so that parts are truncated meanwhile too: the cursor is never refused.
//! And of broken variants, each of which must be caught.

#[path = "../common/mod.rs"]
mod common;

/// Ticks, each of one event; their numbers are their places.
const TICKS: u8 = 6;

/// What the relay commits, one after the other: each leads from one version of the tables to the next.
#[derive(Clone, Copy)]
enum Commit {
    /// Empties the part.
    Empty(u8),
    /// Opens it for what comes next.
    Open(u8),
    /// Writes a tick to it.
    Write(u8, u8),
}

const COMMITS: [Commit; 6] = [
    Commit::Empty(0),
    Commit::Open(0),
    Commit::Write(0, 4),
    Commit::Empty(1),
    Commit::Open(1),
    Commit::Write(1, 5),
];

/// Parts, the oldest first, with their ticks, as bits; and the number of the first tick that is not lost.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct Tables {
    parts: [Option<u8>; 3],
    ticks: [u8; 3],
    lost: u8,
}

fn tables_of(version: u8) -> Tables {
    let mut tables = Tables {
        parts: [Some(0), Some(1), Some(2)],
        ticks: [0b0011, 0b0100, 0b1000],
        lost: 0,
    };
    for commit in &COMMITS[..usize::from(version)] {
        match *commit {
            Commit::Empty(part) => {
                let ticks = std::mem::take(&mut tables.ticks[usize::from(part)]);
                tables.lost = tables.lost.max(8 - ticks.leading_zeros() as u8);
                let left = tables.parts.into_iter().flatten();
                let mut left = left.filter(|other| *other != part);
                tables.parts = std::array::from_fn(|_| left.next());
            }
            Commit::Open(part) => {
                let free = tables.parts.iter_mut().find(|place| place.is_none());
                *free.expect("one was emptied") = Some(part);
            }
            Commit::Write(part, tick) => tables.ticks[usize::from(part)] |= 1 << tick,
        }
    }
    tables
}

/// What is done in another order than it should be, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The state, then the counter, then the ticks of a later snapshot.
    CountsAfterState,
    /// One snapshot of both, and the counter after it.
    CountsAfterSnapshot,
    /// The counter first, and then two snapshots.
    TakesTwoSnapshots,
    /// The counter is looked at only when all ticks of a part were met.
    AsksAfterPart,
    /// It is never looked at.
    NeverAsks,
    /// What is known of the counter is of after the look at what is lost.
    CountsAfterLost,
    /// What is lost is looked at as of the snapshot.
    AsksSnapshot,
    /// The relay counts when it has taken the rows.
    CountsLate,
    /// It counts before it commits.
    CountsEarly,
    /// It takes rows before it commits.
    CleansEarly,
    /// Who finds no tick of a cursor asks the counter whether anything was lost since the snapshot.
    CursorAsksCounter,
    /// It asks nothing.
    CursorAsksNever,
}

const FAULTS: [Fault; 12] = [
    Fault::CountsAfterState,
    Fault::CountsAfterSnapshot,
    Fault::TakesTwoSnapshots,
    Fault::AsksAfterPart,
    Fault::NeverAsks,
    Fault::CountsAfterLost,
    Fault::AsksSnapshot,
    Fault::CountsLate,
    Fault::CountsEarly,
    Fault::CleansEarly,
    Fault::CursorAsksCounter,
    Fault::CursorAsksNever,
];

/// Who looks at the log, and how the relay empties parts meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    /// A reader, which has locked the parts: they are emptied in place.
    Reads,
    /// Somebody with a cursor, who has locked nothing.
    CursorInPlace,
    CursorTruncated,
}

const CASES: [Case; 3] = [Case::Reads, Case::CursorInPlace, Case::CursorTruncated];

/// Where the reader is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
enum Stage {
    #[default]
    Nothing,
    /// So many of the looks before the first tick are done.
    Opens(u8),
    /// Before the next tick of the part at this place.
    Seeks,
    /// It has the row of this tick.
    Met(u8),
    /// It asks what is lost, having read the counter. With a tick in hand, or at the end of a part.
    Asks(Option<u8>, u8),
    /// It has read what is lost, and the counter after it (a fault).
    Asked(Option<u8>, u8),
    /// It is to hand over this tick.
    Hands(u8),
    /// It looks for the tick of its cursor, the last that it has passed.
    Looks,
    /// It has found none.
    Misses,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
struct World {
    version: u8,
    counter: u8,
    /// Rows of ticks that are gone, and of their events.
    gone: u8,
    gone_events: u8,
    stage: Stage,
    /// Versions of the state and of the ticks that the reader has, what it knows of the counter, and what it knows is lost.
    state: u8,
    seen: u8,
    known: u8,
    lost: u8,
    /// The part of its list that it reads, and the first tick there that it has not looked for.
    place: u8,
    next: u8,
    /// The first tick that it has not passed.
    passed: u8,
    handed: u8,
    /// Ticks that a resync stood for.
    covered: u8,
    /// It passed over something that is there, or went back.
    is_bad: bool,
}

impl World {
    /// The tick of the cursor is neither there nor lost: it is refused.
    fn refuse_unless_lost(&mut self, lost: u8) {
        self.is_bad |= self.passed >= lost;
    }

    fn resync(&mut self, to: u8) {
        let over = (1u8 << to) - (1 << self.passed);
        self.covered |= over;
        // Lost are ticks below this, and those whose events are gone.
        let lost = (1u8 << tables_of(self.version).lost) - 1;
        self.is_bad |= over & !lost & !self.gone_events != 0;
        self.passed = to;
    }
}

fn relay(world: &World, case: Case, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut step = |change: &dyn Fn(&mut World)| {
        let mut next = *world;
        change(&mut next);
        found(next);
    };
    // What it has emptied, all of which it cleans before it goes on, and how often it should have counted.
    let emptied = |version: u8| {
        let all = COMMITS[..usize::from(version)].iter();
        all.filter(|commit| matches!(commit, Commit::Empty(_)))
            .count() as u8
    };
    if case == Case::CursorTruncated {
        if usize::from(world.version) < COMMITS.len() {
            step(&|next| {
                next.version += 1;
                // The rows go with the commit, for each snapshot.
                next.gone = (1u8 << tables_of(next.version).lost) - 1;
            });
        }
        return;
    }
    let lost = (1u8 << tables_of(world.version).lost) - 1;
    let is_clean = world.gone & lost == lost && world.gone_events & lost == lost;
    let has_counted = world.counter >= emptied(world.version);
    if !has_counted && (is_clean || fault != Some(Fault::CountsLate)) {
        step(&|next| next.counter += 1);
    }
    let coming = (world.version < COMMITS.len() as u8).then_some(world.version + 1);
    let may_clean = match fault {
        Some(Fault::CountsLate) => lost,
        Some(Fault::CleansEarly) if world.version == 0 => 0b11,
        _ if has_counted => lost,
        _ => 0,
    };
    for tick in 0..TICKS {
        let bit = 1u8 << tick;
        if may_clean & bit != 0 && world.gone & bit == 0 {
            step(&|next| next.gone |= bit);
        }
        if may_clean & bit != 0 && world.gone_events & bit == 0 {
            step(&|next| next.gone_events |= bit);
        }
    }
    let Some(coming) = coming else { return };
    let empties = matches!(COMMITS[usize::from(world.version)], Commit::Empty(_));
    if is_clean && has_counted {
        let is_early = fault == Some(Fault::CountsEarly) && empties;
        if is_early && world.counter < emptied(coming) {
            step(&|next| next.counter += 1);
        } else {
            step(&|next| next.version = coming);
        }
    } else if fault == Some(Fault::CleansEarly) && world.version == 0 {
        step(&|next| next.version = coming);
    }
}

fn open(world: &World, done: u8, case: Case, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut next = *world;
    let state = |next: &mut World| {
        next.state = world.version;
        next.lost = tables_of(world.version).lost;
    };
    let ticks = |next: &mut World| next.seen = world.version;
    let count = |next: &mut World| next.known = world.counter;
    let last = match (fault, done) {
        (Some(Fault::CountsAfterState), 0) | (Some(Fault::TakesTwoSnapshots), 1) => {
            state(&mut next);
            false
        }
        (Some(Fault::CountsAfterState | Fault::TakesTwoSnapshots), 2) => {
            ticks(&mut next);
            true
        }
        (Some(Fault::CountsAfterSnapshot), 1) => {
            count(&mut next);
            true
        }
        (Some(Fault::CountsAfterSnapshot), _) | (_, 1)
            if fault != Some(Fault::CountsAfterState) =>
        {
            state(&mut next);
            ticks(&mut next);
            fault != Some(Fault::CountsAfterSnapshot)
        }
        _ => {
            count(&mut next);
            false
        }
    };
    next.stage = Stage::Opens(done + 1);
    if last && case != Case::Reads {
        next.stage = match next.passed < next.lost {
            true => Stage::Done,
            false => Stage::Looks,
        };
    } else if last {
        // A reader is told first what was lost before it came.
        if next.passed < next.lost {
            let lost = next.lost;
            next.resync(lost);
        }
        next.stage = Stage::Seeks;
    }
    found(next);
}

/// The part where this tick was at first. A cursor is looked for in no other, because one that was emptied is in no list.
fn part_of(tick: u8) -> usize {
    let ticks = tables_of(0).ticks;
    let part = ticks.iter().position(|ticks| ticks & 1 << tick != 0);
    part.expect("a tick that was given")
}

fn read(world: &World, case: Case, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut to = |stage: Stage, change: &dyn Fn(&mut World)| {
        let mut next = *world;
        next.stage = stage;
        change(&mut next);
        found(next);
    };
    let ask = |held: Option<u8>| match fault {
        Some(Fault::NeverAsks) => None,
        Some(Fault::AsksAfterPart) if held.is_some() => None,
        _ => Some(Stage::Asks(held, world.counter)),
    };
    let hand_or_seek = |held: Option<u8>| held.map_or(Stage::Seeks, Stage::Hands);
    match world.stage {
        Stage::Nothing => {
            let given = match case {
                Case::Reads => TICKS,
                Case::CursorInPlace | Case::CursorTruncated => 4,
            };
            for passed in 0..given {
                to(Stage::Opens(0), &|next| next.passed = passed);
            }
        }
        Stage::Opens(done) => open(world, done, case, fault, found),
        Stage::Seeks => {
            let Some(part) = tables_of(world.state)
                .parts
                .get(usize::from(world.place))
                .copied()
                .flatten()
            else {
                return to(Stage::Done, &|_| {});
            };
            let ticks = tables_of(world.seen).ticks[usize::from(part)] & !world.gone;
            let tick = (world.next.max(world.passed)..TICKS).find(|tick| ticks & 1 << tick != 0);
            match tick {
                None => {
                    let stage = ask(None).unwrap_or(Stage::Seeks);
                    to(stage, &|next| {
                        next.place += 1;
                        next.next = 0;
                    });
                }
                // What comes before it in the index is looked for first: its row may be there still, or gone.
                Some(tick) => to(Stage::Met(tick), &|next| next.next = tick + 1),
            }
        }
        Stage::Met(tick) => to(ask(Some(tick)).unwrap_or(Stage::Hands(tick)), &|_| {}),
        Stage::Asks(held, counter) => {
            if counter == world.known {
                return to(hand_or_seek(held), &|_| {});
            }
            let lost = match fault {
                Some(Fault::AsksSnapshot) => tables_of(world.state).lost,
                _ => tables_of(world.version).lost,
            };
            if fault == Some(Fault::CountsAfterLost) {
                return to(Stage::Asked(held, lost), &|_| {});
            }
            to(hand_or_seek(held), &|next| {
                next.known = counter;
                next.lost = lost;
                if next.passed < lost {
                    next.resync(lost);
                }
            });
        }
        Stage::Asked(held, lost) => to(hand_or_seek(held), &|next| {
            next.known = world.counter;
            next.lost = lost;
            if next.passed < lost {
                next.resync(lost);
            }
        }),
        Stage::Hands(tick) if tick < world.passed => to(Stage::Seeks, &|_| {}),
        Stage::Hands(tick) => {
            to(Stage::Done, &|next| hand_over(next, tick));
            to(Stage::Seeks, &|next| hand_over(next, tick));
        }
        Stage::Looks => {
            let ticks = tables_of(world.seen).ticks[part_of(world.passed)] & !world.gone;
            match ticks & 1 << world.passed {
                0 => to(Stage::Misses, &|_| {}),
                _ => to(Stage::Done, &|_| {}),
            }
        }
        Stage::Misses => to(Stage::Done, &|next| {
            let asks = match fault {
                Some(Fault::CursorAsksCounter) => world.counter != world.known,
                Some(Fault::CursorAsksNever) => false,
                _ => true,
            };
            let lost = match asks {
                true => tables_of(world.version).lost,
                false => world.lost,
            };
            next.refuse_unless_lost(lost);
        }),
        Stage::Done => {}
    }
}

/// Its events, or the resync that stands for them.
fn hand_over(world: &mut World, tick: u8) {
    if world.gone_events & 1 << tick != 0 {
        let between = (1u8 << tick) - (1 << world.passed);
        world.is_bad |= between != 0;
        world.resync(tick + 1);
        return;
    }
    let skipped = (1u8 << tick) - (1 << world.passed);
    world.is_bad |= skipped != 0;
    world.handed |= 1 << tick;
    world.passed = tick + 1;
}

fn explore(case: Case, fault: Option<Fault>) -> (usize, bool) {
    common::explore(
        World::default(),
        |world| world.is_bad,
        |world, found| {
            relay(world, case, fault, found);
            read(world, case, fault, found);
        },
    )
}

#[test]
fn what_is_emptied_during_a_read_is_followed_by_a_resync() {
    common::assert_holds(&[Case::Reads], |case| explore(case, None));
}

#[test]
fn a_cursor_that_was_given_is_not_refused() {
    for case in [Case::CursorInPlace, Case::CursorTruncated] {
        let (worlds, bad) = explore(case, None);
        assert!(!bad && worlds > 100, "{case:?}: {worlds} worlds");
    }
}

#[test]
fn each_fault_is_caught() {
    common::assert_caught(&FAULTS, &CASES, |case, fault| explore(case, Some(fault)).1);
}
