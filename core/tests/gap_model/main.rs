//! Every interleaving of transactions whose notices find no room in the event log, and of a relay that ticks, fails, leaves and
//! comes back, on a server that may crash (src/log/gap.rs, src/relay/ticking.rs): each such transaction is followed by a resync
//! that its readers get when they can see what it did, and it leaves a marker in the log or knows that one stands for it. And of broken
//! variants, each of which must be caught.

#[path = "../common/mod.rs"]
mod common;

use pushy_core::log::gap;
use pushy_core::log::seen::Seen;

/// Transactions, each of which drops notices. Their numbers are their places: they begin in this order. (Of three no more is to
/// be learned, in thirty times the time.)
const WRITERS: usize = 2;

/// What is done in another order than it should be, or not at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// A transaction leaves no marker: what it dropped is counted in shared memory and published with the next tick.
    LeavesNoMarker,
    /// The gap opens before the transaction has committed that has left the marker.
    OpensEarly,
    /// It opens though the relay has closed it since the marker was written.
    OpensLate,
    /// Whether the gap is open is asked before the transaction has its number.
    AsksWithoutNumber,
    /// The gap is closed before the snapshot: whoever opens it in between has its marker in the tick, which does not know.
    ClosesEarly,
    /// The next number is read before the gap is closed.
    CountsEarly,
    /// The mark that there is something to look at is taken off after the snapshot.
    TakesMarkLate,
    /// Transactions count as old up to the last one that has ended.
    CountsEndedOnly,
    /// The relay does not write down for whom it waits.
    KeepsInMind,
    /// A relay does not mind what the one before may have done.
    TrustsTheOneBefore,
    /// It says that all is written down before it is.
    SaysCertainEarly,
    /// It waits for nobody more while the gap can still be opened.
    StopsWhileOpen,
    /// It does not wait for those who found the gap open.
    IgnoresUse,
    /// Who finds it open does not say so.
    UsesInSilence,
    /// It does not wait though a marker's transaction may yet open the gap.
    IgnoresComing,
    /// It has markers only.
    TellsOnce,
    /// COMMIT PREPARED calls no relay.
    ForgetsPrepared,
}

const FAULTS: [Fault; 17] = [
    Fault::LeavesNoMarker,
    Fault::OpensEarly,
    Fault::OpensLate,
    Fault::AsksWithoutNumber,
    Fault::ClosesEarly,
    Fault::CountsEarly,
    Fault::TakesMarkLate,
    Fault::CountsEndedOnly,
    Fault::KeepsInMind,
    Fault::TrustsTheOneBefore,
    Fault::SaysCertainEarly,
    Fault::StopsWhileOpen,
    Fault::IgnoresUse,
    Fault::UsesInSilence,
    Fault::IgnoresComing,
    Fault::TellsOnce,
    Fault::ForgetsPrepared,
];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum Stage {
    #[default]
    Nothing,
    /// It has asked whether the gap is open before it had a number (a fault).
    Asked,
    /// It has a number, and has dropped notices.
    Runs,
    /// It has left a marker, or found the gap open.
    Decided,
    Prepared,
    /// Everybody sees what it did; its session has not said so.
    Visible,
    Committed,
    RolledBack,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Writer {
    stage: Stage,
    /// It has left a marker.
    marked: bool,
    /// The relay has not closed the gap since then.
    current: bool,
    /// It was answered that the gap is open.
    saw_open: bool,
    /// Readers have got a resync that came after it.
    told: bool,
}

impl Writer {
    fn has_committed(&self) -> bool {
        matches!(self.stage, Stage::Visible | Stage::Committed)
    }

    fn is_over(&self) -> bool {
        self.has_committed() || self.stage == Stage::RolledBack
    }
}

/// What the relay does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
enum Relay {
    #[default]
    Away,
    Rests,
    /// It has taken off the mark.
    Called(Tick),
    /// It has its snapshot, or has closed the gap (a fault).
    Looked(Tick),
    /// It has closed the gap, or had no room to.
    Closed(Tick),
    Written,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Tick {
    /// All that the relay before did was written down.
    was_certain: bool,
    was_used: bool,
    has_closed: bool,
    /// Who was over, as bits.
    over: u8,
    /// The next number.
    next: u8,
}

/// What the tables say.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct Durable {
    /// Those before this number are waited for; 0: nobody.
    until: u8,
    /// Who was over at the last tick.
    seen: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct World {
    writers: [Writer; WRITERS],
    begun: u8,
    /// Shared memory: the gap, whether somebody has found it open, whether the relay has written down what it took, whether there is something to look at, and what
    /// was dropped as it is counted by a faulty server.
    open: bool,
    used: bool,
    certain: bool,
    dirty: bool,
    dropped: bool,
    relay: Relay,
    durable: Durable,
    /// What a crash may still take back: the relay's last write, unless somebody has committed since.
    before: Option<(Durable, [bool; WRITERS])>,
}

impl World {
    fn over(&self) -> u8 {
        let bits = self.writers.iter().enumerate();
        bits.fold(0, |all, (at, writer)| {
            all | u8::from(writer.is_over()) << at
        })
    }
}

fn write(world: &World, who: usize, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let writer = world.writers[who];
    let mut step = |change: &dyn Fn(&mut World, &mut Writer)| {
        let (mut next, mut changed) = (*world, writer);
        change(&mut next, &mut changed);
        next.writers[who] = changed;
        found(next);
    };
    let roll_back = |_: &mut World, it: &mut Writer| it.stage = Stage::RolledBack;
    let commit = |next: &mut World, it: &mut Writer| {
        it.stage = Stage::Visible;
        next.before = None;
    };
    let begin = |next: &mut World, it: &mut Writer| {
        it.stage = Stage::Runs;
        next.begun += 1;
        next.dropped |= fault == Some(Fault::LeavesNoMarker);
    };
    let is_next = usize::from(world.begun) == who;
    match writer.stage {
        Stage::Nothing if fault == Some(Fault::AsksWithoutNumber) => step(&|next, it| {
            it.stage = Stage::Asked;
            it.saw_open = next.open;
            next.used |= next.open;
        }),
        Stage::Nothing | Stage::Asked if is_next => step(&begin),
        Stage::Runs => {
            step(&roll_back);
            step(&|next, it| {
                it.stage = Stage::Decided;
                if fault != Some(Fault::AsksWithoutNumber) {
                    it.saw_open = next.open;
                    next.used |= next.open && fault != Some(Fault::UsesInSilence);
                }
                it.marked = !it.saw_open && fault != Some(Fault::LeavesNoMarker);
                it.current = true;
                next.open |= it.marked && fault == Some(Fault::OpensEarly);
            });
        }
        Stage::Decided => {
            step(&roll_back);
            step(&commit);
            step(&|next, it| {
                it.stage = Stage::Prepared;
                next.before = None;
            });
        }
        Stage::Prepared => {
            step(&roll_back);
            // Whoever says COMMIT PREPARED does not know of the marker.
            step(&|next, it| {
                commit(next, it);
                it.marked = writer.marked;
                it.current = false;
                if fault == Some(Fault::ForgetsPrepared) {
                    it.stage = Stage::Committed;
                }
            });
        }
        Stage::Visible => step(&|next, it| {
            it.stage = Stage::Committed;
            next.open |= it.marked && (it.current || fault == Some(Fault::OpensLate));
            next.dirty = true;
        }),
        _ => {}
    }
}

fn close(world: &World, found: &mut dyn FnMut(World), tick: Tick, then: fn(Tick) -> Relay) {
    for has_room in [false, true] {
        let mut next = *world;
        next.relay = then(Tick {
            was_used: world.used,
            has_closed: has_room,
            ..tick
        });
        next.used = false;
        if has_room {
            next.open = false;
            next.writers
                .iter_mut()
                .for_each(|writer| writer.current = false);
        }
        found(next);
    }
}

fn look(world: &World, found: &mut dyn FnMut(World), tick: Tick, then: fn(Tick) -> Relay) {
    let mut next = *world;
    next.relay = then(Tick {
        over: world.over(),
        next: world.begun,
        ..tick
    });
    found(next);
}

fn relay(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let mut to = |relay: Relay, change: &dyn Fn(&mut World)| {
        let mut next = *world;
        next.relay = relay;
        change(&mut next);
        found(next);
    };
    // Its process ends, or its transaction fails: whoever comes next looks.
    if world.relay != Relay::Away {
        to(Relay::Away, &|_| {});
    }
    match world.relay {
        Relay::Away => to(Relay::Rests, &|next| {
            next.dirty = true;
            if fault == Some(Fault::KeepsInMind) {
                next.durable.until = 0;
            }
        }),
        Relay::Rests if world.dirty => {
            let tick = Tick {
                was_certain: world.certain || fault == Some(Fault::TrustsTheOneBefore),
                ..Tick::default()
            };
            to(Relay::Called(tick), &|next| {
                next.dirty = fault == Some(Fault::TakesMarkLate);
                next.certain = fault == Some(Fault::SaysCertainEarly);
            });
        }
        Relay::Rests => {}
        Relay::Called(tick) if fault == Some(Fault::ClosesEarly) => {
            close(world, found, tick, Relay::Looked);
        }
        Relay::Called(tick) => look(world, found, tick, Relay::Looked),
        Relay::Looked(tick) if fault == Some(Fault::ClosesEarly) => {
            look(world, found, tick, Relay::Closed);
        }
        Relay::Looked(tick) => close(world, found, tick, Relay::Closed),
        Relay::Closed(tick) => {
            let next = match fault {
                Some(Fault::CountsEarly) => tick.next,
                Some(Fault::CountsEndedOnly) => (u8::BITS - tick.over.leading_zeros()) as u8,
                _ => world.begun,
            };
            let tick = Tick { next, ..tick };
            for has_others in [false, true] {
                to(Relay::Written, &|next| {
                    put_down(next, tick, has_others, fault)
                });
            }
        }
        Relay::Written => to(Relay::Rests, &|next| next.certain = true),
    }
}

/// Who was over, as a snapshot has it.
fn seen(over: u8) -> Seen {
    let xmax = u8::BITS - over.leading_zeros();
    let running: Vec<u64> = (0..xmax)
        .filter(|at| over & 1 << at == 0)
        .map(u64::from)
        .collect();
    let xmin = running.first().copied().unwrap_or(u64::from(xmax));
    Seen::new(xmin, u64::from(xmax), running)
}

/// The tick is written. `has_others`: it has notices, so that it is written though nothing was dropped.
fn put_down(world: &mut World, tick: Tick, has_others: bool, fault: Option<Fault>) {
    let before = world.durable;
    let told = world.writers.map(|writer| writer.told);
    let is_due = world.writers.iter().enumerate().any(|(at, writer)| {
        let is_new = tick.over & !before.seen & 1 << at != 0;
        is_new && writer.marked && writer.has_committed()
    });
    let known = gap::Tick {
        was_certain: tick.was_certain,
        was_used: tick.was_used && fault != Some(Fault::IgnoresUse),
        has_closed: tick.has_closed || (is_due && fault == Some(Fault::IgnoresComing)),
        is_due,
        next: tick.next.into(),
    };
    let now = seen(tick.over);
    let mut settled = known.settle(before.until.into(), &seen(before.seen), &now);
    match fault {
        Some(Fault::TellsOnce) => settled.lost = is_due,
        Some(Fault::StopsWhileOpen) if now.are_over_below(settled.until) => settled.until = 0,
        _ => {}
    }
    settled.lost |= std::mem::take(&mut world.dropped);
    world.durable.until = settled.until as u8;
    if settled.lost || has_others {
        world.durable.seen = tick.over;
    }
    if settled.lost {
        for (at, writer) in world.writers.iter_mut().enumerate() {
            writer.told |= tick.over & 1 << at != 0;
        }
    }
    world.before = Some((before, told));
    world.dirty &= fault != Some(Fault::TakesMarkLate);
}

fn crash(world: &World, found: &mut dyn FnMut(World)) {
    for undone in std::iter::once(None).chain(world.before.map(Some)) {
        let mut next = *world;
        next.relay = Relay::Away;
        (next.open, next.used, next.certain) = (false, false, false);
        (next.dirty, next.dropped) = (false, false);
        if let Some((durable, told)) = undone {
            next.durable = durable;
            for (writer, told) in next.writers.iter_mut().zip(told) {
                writer.told = told;
            }
        }
        next.before = None;
        for writer in &mut next.writers {
            writer.current = false;
            writer.stage = match writer.stage {
                Stage::Runs | Stage::Decided => Stage::RolledBack,
                Stage::Visible => Stage::Committed,
                Stage::Asked => Stage::Nothing,
                as_it_is => as_it_is,
            };
        }
        found(next);
    }
}

/// The relay rests, nobody calls it, and somebody's notices are missing, for which no reader got a resync.
fn is_bad(world: &World) -> bool {
    let is_missed = |writer: &Writer| writer.stage == Stage::Committed && !writer.told;
    world.relay == Relay::Rests && !world.dirty && world.writers.iter().any(is_missed)
}

fn explore(fault: Option<Fault>) -> (usize, bool) {
    common::explore(World::default(), is_bad, |world, found| {
        (0..WRITERS).for_each(|who| write(world, who, fault, found));
        relay(world, fault, found);
        crash(world, found);
    })
}

#[test]
fn whoever_drops_notices_is_followed_by_a_resync() {
    common::assert_holds(&[()], |()| explore(None));
}

#[test]
fn each_fault_is_caught() {
    common::assert_caught(&FAULTS, &[()], |(), fault| explore(Some(fault)).1);
}
