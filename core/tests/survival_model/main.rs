//! Every interleaving of writers, a relay, a reader and a standby with crashes and promotions (src/log/standing.rs, src/relay/ticking.rs,
//! src/log/subscription/read.rs): a reader that has read what the server does not have any more is told to resync, and nobody is told so who
//! has read nothing of that kind. And of broken variants, each of which must be caught.

#[path = "../common/mod.rs"]
mod common;

use pushy_core::log::cursor::{next_epoch, Cursor};
use pushy_core::log::standing::{CursorStanding, LogExtent};

/// Events, each of its own transaction.
const EVENTS: u8 = 2;
const RECORDS: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// What is read may be in memory only.
    ReadsUnflushed,
    /// The events are on disk when they are read; their tick is not.
    FlushesEventsOnly,
    /// A cursor whose tick is gone is taken for one before the next tick.
    BelievesCursors,
    /// No relay tells that the timeline is another.
    TellsNoTimeline,
    /// The timeline is written down with the epoch, before any tick says so.
    TakesTimelineEarly,
    /// The relay says so in its first tick only, whether that was written or not, and what becomes of it.
    TellsOnce,
    /// Each life of a relay begins with a resync.
    TellsAlways,
    /// Epochs do not begin above those of the timeline before.
    ForgetsTimelineInEpoch,
}

const FAULTS: [Fault; 8] = [
    Fault::ReadsUnflushed,
    Fault::FlushesEventsOnly,
    Fault::BelievesCursors,
    Fault::TellsNoTimeline,
    Fault::TakesTimelineEarly,
    Fault::TellsOnce,
    Fault::TellsAlways,
    Fault::ForgetsTimelineInEpoch,
];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Record {
    Commit(u8),
    Begin {
        epoch: i64,
        timeline: Option<i32>,
    },
    Tick {
        at: Cursor,
        events: u8,
        lost: bool,
        timeline: Option<i32>,
    },
}

/// Who reads: a copy elsewhere that keeps its cursor, or one that has acknowledged nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    KeepsCursor,
    KeepsNone,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
struct World {
    wal: [Option<Record>; RECORDS],
    len: u8,
    flushed: u8,
    received: u8,
    timeline: i32,
    begun: u8,
    was_promoted: bool,
    has_crashed: bool,
    /// In shared memory: the epoch that a relay of here has begun, 0: none; and the relay, its next tick, and what it is to tell.
    begun_epoch: i64,
    relay: Option<(i64, Option<i32>)>,
    /// The relay has failed to write its first tick.
    has_failed: bool,
    cursor: Option<Cursor>,
    copy: u8,
    /// The reader was told to resync, and has read to the end.
    was_told: bool,
    has_read_all: bool,
}

/// What the tables say.
#[derive(Default)]
struct Tables {
    events: u8,
    ticked: u8,
    epoch: i64,
    timeline: i32,
    ticks: Vec<(Cursor, u8, bool)>,
}

fn tables(world: &World) -> Tables {
    let mut tables = Tables {
        timeline: 1,
        ..Tables::default()
    };
    for record in world.wal.iter().take(world.len.into()).flatten() {
        match *record {
            Record::Commit(event) => tables.events |= 1 << event,
            Record::Begin { epoch, timeline } => {
                tables.epoch = epoch;
                tables.timeline = timeline.unwrap_or(tables.timeline);
            }
            Record::Tick {
                at,
                events,
                lost,
                timeline,
            } => {
                tables.ticks.push((at, events, lost));
                tables.ticked |= events;
                tables.timeline = timeline.unwrap_or(tables.timeline);
            }
        }
    }
    tables
}

impl World {
    fn append(&mut self, record: Record) -> bool {
        let Some(free) = self.wal.get_mut(usize::from(self.len)) else {
            return false;
        };
        *free = Some(record);
        self.len += 1;
        true
    }

    /// The server goes on with so much of its WAL.
    fn come_back(&mut self, len: u8) {
        self.wal[usize::from(len)..].fill(None);
        (self.len, self.flushed) = (len, len);
        self.received = self.received.min(len);
        self.begun_epoch = 0;
        self.relay = None;
        self.has_failed = false;
        self.has_read_all = false;
    }
}

fn write(world: &World, found: &mut dyn FnMut(World)) {
    if world.begun == EVENTS {
        return;
    }
    for is_synchronous in [false, true] {
        let mut next = *world;
        next.begun += 1;
        next.has_read_all = false;
        if next.append(Record::Commit(world.begun)) {
            if is_synchronous {
                next.flushed = next.len;
            }
            found(next);
        }
    }
}

fn relay(world: &World, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let now = tables(world);
    let mut next = *world;
    next.has_read_all = false;
    let Some((tick, owed)) = world.relay else {
        let timeline = if fault == Some(Fault::ForgetsTimelineInEpoch) {
            1
        } else {
            world.timeline
        };
        let epoch = next_epoch(now.epoch, timeline as u32, 0);
        let is_news = match fault {
            Some(Fault::TellsNoTimeline) => false,
            Some(Fault::TellsOnce) => now.timeline != world.timeline && !world.has_failed,
            Some(Fault::TellsAlways) => true,
            _ => now.timeline != world.timeline,
        };
        let taken = (fault == Some(Fault::TakesTimelineEarly)).then_some(world.timeline);
        let begin = Record::Begin {
            epoch,
            timeline: taken,
        };
        if next.append(begin) {
            next.flushed = next.len;
            next.begun_epoch = epoch;
            next.relay = Some((1, is_news.then_some(world.timeline)));
            found(next);
        }
        return;
    };
    // Its process ends.
    let mut gone = *world;
    gone.relay = None;
    gone.has_failed = true;
    found(gone);
    let events = now.events & !now.ticked;
    if events == 0 && owed.is_none() {
        return;
    }
    let record = Record::Tick {
        at: Cursor::new(now.epoch, tick, events.count_ones() as i32),
        events,
        lost: owed.is_some(),
        timeline: owed,
    };
    if next.append(record) {
        next.relay = Some((tick + 1, None));
        found(next);
    }
}

fn read(world: &World, reader: Reader, fault: Option<Fault>, found: &mut dyn FnMut(World)) {
    let now = tables(world);
    let mut next = *world;
    let log = LogExtent {
        epoch: now.epoch,
        is_epoch_of_here: world.begun_epoch == now.epoch && now.epoch > 0,
        lost: Cursor::START,
        is_in_recovery: false,
    };
    let from = world.cursor.unwrap_or(Cursor::START);
    let there = now
        .ticks
        .iter()
        .find(|(at, ..)| (at.epoch, at.tick) == (from.epoch, from.tick));
    let standing = log.standing(from, there.map(|(at, ..)| *at));
    assert!(
        standing != CursorStanding::NeverGiven || fault.is_some(),
        "{world:?}"
    );
    let mut is_gone = standing == CursorStanding::Gone && fault != Some(Fault::BelievesCursors);
    let mut passed = from;
    let mut is_told = false;
    let mut answered = false;
    for (at, events, lost) in now.ticks.iter().filter(|(at, ..)| *at > from) {
        answered = true;
        passed = *at;
        if *lost || is_gone {
            is_told = true;
            is_gone = false;
            // The tables, which have what is in later ticks too.
            next.copy = now.events;
        }
        next.copy |= events;
    }
    if is_gone {
        (answered, is_told) = (true, true);
        next.copy = now.events;
        passed = now.ticks.last().map_or(Cursor::START, |(at, ..)| *at);
    }
    if is_told {
        next.was_told = true;
    }
    if answered {
        next.flushed = match fault {
            Some(Fault::ReadsUnflushed) => next.flushed,
            Some(Fault::FlushesEventsOnly) => {
                let is_commit = |record: &Option<Record>| matches!(record, Some(Record::Commit(_)));
                let last = world.wal.iter().rposition(is_commit);
                next.flushed.max(last.map_or(0, |at| at as u8 + 1))
            }
            _ => next.len,
        };
    }
    if reader == Reader::KeepsCursor {
        next.cursor = Some(passed);
    }
    // Who keeps no cursor has read to the end when a relay of here has come, and has told what it has to tell.
    let is_settled = world.relay.is_some_and(|(_, owed)| owed.is_none());
    next.has_read_all = reader == Reader::KeepsCursor || is_settled;
    found(next);
}

fn fail(world: &World, found: &mut dyn FnMut(World)) {
    if !world.has_crashed {
        for len in world.flushed..=world.len {
            let mut next = *world;
            next.has_crashed = true;
            next.come_back(len);
            found(next);
        }
    }
    if world.received < world.flushed && !world.was_promoted {
        let mut next = *world;
        next.received = world.flushed;
        found(next);
    }
    if !world.was_promoted {
        let mut next = *world;
        next.was_promoted = true;
        next.timeline += 1;
        next.come_back(world.received);
        found(next);
    }
}

/// The reader has read all there is, and has what is not there; or it was told to resync where nothing can have been lost to it.
fn is_bad(world: &World) -> bool {
    let phantom = world.copy & !tables(world).events != 0;
    (world.has_read_all && phantom) || (world.was_told && !world.was_promoted)
}

fn explore(reader: Reader, fault: Option<Fault>) -> (usize, bool) {
    let first = World {
        timeline: 1,
        ..World::default()
    };
    common::explore(first, is_bad, |world, found| {
        write(world, found);
        relay(world, fault, found);
        read(world, reader, fault, found);
        fail(world, found);
    })
}

const READERS: [Reader; 2] = [Reader::KeepsCursor, Reader::KeepsNone];

#[test]
fn whoever_has_read_what_is_lost_is_told_to_resync() {
    common::assert_holds(&READERS, |reader| explore(reader, None));
}

#[test]
fn each_fault_is_caught() {
    common::assert_caught(&FAULTS, &READERS, |reader, fault| {
        explore(reader, Some(fault)).1
    });
}
