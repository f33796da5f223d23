//! Every interleaving of two writers, of the relay that puts what has committed into ticks, of one who empties them, and of a
//! page that reads tables and takes a cursor by the same snapshot (src/log/stream.rs, `log_position`): each change is in the page's
//! data, or comes behind the cursor, or the reader is told to resync. And of broken variants, each of which must be caught.

#[path = "../common/mod.rs"]
mod common;

const WRITERS: usize = 2;
const MOST_TICKS: u8 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// The cursor is read by a later snapshot than the data: after them in READ COMMITTED, or by the newest one there is.
    ReadsLater,
    /// The page looks up to where ticks were emptied as of now, not as of its snapshot.
    EmptiedAsOfNow,
    /// The relay looks once more for what has committed when others see its tick.
    AddsToTick,
    /// What was emptied is passed over without a word.
    SkipsResync,
    /// The cursor is that of the tick which the relay is writing, as shared memory has it.
    ReadsUncommitted,
}

const FAULTS: [Fault; 5] = [
    Fault::ReadsLater,
    Fault::EmptiedAsOfNow,
    Fault::AddsToTick,
    Fault::SkipsResync,
    Fault::ReadsUncommitted,
];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Relay {
    Idle,
    /// What was over when it took its snapshot.
    Seen([bool; WRITERS]),
    /// Its tick is written, and nobody sees it yet.
    Written([bool; WRITERS]),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Page {
    Idle,
    /// What its snapshot sees: writers, the newest tick, up to where ticks were emptied.
    Took {
        data: [bool; WRITERS],
        newest: u8,
        emptied: u8,
    },
    Has {
        data: [bool; WRITERS],
        cursor: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct World {
    committed: [bool; WRITERS],
    /// The tick of each writer's notice; 0: none yet.
    tick_of: [u8; WRITERS],
    relay: Relay,
    /// The newest tick that others see.
    newest: u8,
    /// Ticks up to this one are gone, for every snapshot.
    emptied: u8,
    page: Page,
    is_bad: bool,
}

fn steps(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    for writer in 0..WRITERS {
        if !world.committed[writer] {
            let mut next = *world;
            next.committed[writer] = true;
            found(next);
        }
    }
    relay(world, fault, found);
    if world.emptied < world.newest {
        let mut next = *world;
        next.emptied += 1;
        found(next);
    }
    page(world, fault, found);
}

fn relay(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut next = *world;
    match world.relay {
        Relay::Idle if world.newest < MOST_TICKS => next.relay = Relay::Seen(world.committed),
        Relay::Idle => return,
        Relay::Seen(over) => next.relay = Relay::Written(over),
        Relay::Written(over) => {
            let is_late = fault == Some(Fault::AddsToTick);
            next.newest += 1;
            for (tick_of, over) in next.tick_of.iter_mut().zip(over) {
                if over && *tick_of == 0 {
                    *tick_of = next.newest;
                }
            }
            next.relay = Relay::Idle;
            found(next);
            // What commits at this moment, after others have seen the tick.
            for writer in (0..WRITERS).filter(|_| is_late) {
                let mut later = next;
                if later.tick_of[writer] == 0 {
                    later.committed[writer] = true;
                    later.tick_of[writer] = later.newest;
                    if matches!(later.page, Page::Idle) {
                        // A page that has taken its snapshot in between.
                        later.page = Page::Took {
                            data: next.committed,
                            newest: next.newest,
                            emptied: next.emptied,
                        };
                        found(later);
                    }
                }
            }
            return;
        }
    }
    found(next);
}

fn page(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut next = *world;
    match world.page {
        Page::Idle => {
            next.page = Page::Took {
                data: world.committed,
                newest: world.newest,
                emptied: world.emptied,
            };
        }
        Page::Took {
            data,
            newest,
            emptied,
        } => {
            // Of the ticks that its snapshot sees those may be gone that were emptied since.
            let is_there = |tick: u8| tick > world.emptied;
            let seen = match fault {
                Some(Fault::ReadsLater) => world.newest,
                Some(Fault::ReadsUncommitted) => {
                    world.newest + u8::from(matches!(world.relay, Relay::Written(_)))
                }
                _ => newest,
            };
            let emptied = match fault {
                Some(Fault::EmptiedAsOfNow) => world.emptied,
                _ => emptied,
            };
            let cursor = if is_there(seen) { seen } else { 0 }.max(emptied);
            next.page = Page::Has { data, cursor };
        }
        Page::Has { data, cursor } => {
            // It reads what comes behind: all of it, when all is in ticks.
            let are_all_told =
                (0..WRITERS).all(|writer| world.committed[writer] && world.tick_of[writer] > 0);
            if !are_all_told {
                return;
            }
            let resyncs = cursor < world.emptied && fault != Some(Fault::SkipsResync);
            let is_missed = |writer: usize| {
                let tick = world.tick_of[writer];
                !data[writer] && (tick <= cursor || tick <= world.emptied)
            };
            next.is_bad = !resyncs && (0..WRITERS).any(is_missed);
            if !next.is_bad {
                return;
            }
        }
    }
    found(next);
}

fn explore(fault: Option<Fault>) -> (usize, bool) {
    let first = World {
        committed: [false; WRITERS],
        tick_of: [0; WRITERS],
        relay: Relay::Idle,
        newest: 0,
        emptied: 0,
        page: Page::Idle,
        is_bad: false,
    };
    common::explore(
        first,
        |world| world.is_bad,
        |world, found| steps(world, fault, found),
    )
}

#[test]
fn a_page_and_its_stream_have_no_gap() {
    common::assert_holds(&[()], |()| explore(None));
}

#[test]
fn each_fault_is_caught() {
    common::assert_caught(&FAULTS, &[()], |(), fault| explore(Some(fault)).1);
}
