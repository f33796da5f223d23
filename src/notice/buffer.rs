//! What the current transaction will tell, kept in order and per savepoint until just before its commit.
//!
//! Bounded: past a limit what the current savepoint has said goes out early. That is as good, for wherever
//! it goes (NOTIFY's own list, tables) follows savepoints as well; only what was said before the savepoint
//! comes later then.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::flush;
use crate::errors::{Error, Result, SqlState};
use crate::job::enqueue::Request;
use crate::pg::transaction::{self, Before, End, Observer, SavepointEnd};
use crate::settings;

/// How a notice goes to those who listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// NOTIFY, in the transaction that says it.
    Notify,
    /// Through the event log; `merge`: with equal ones of other transactions. `cause`: the job that says it,
    /// and its depth.
    Relay {
        merge: bool,
        cause: Option<(i64, i32)>,
    },
}

/// One thing to tell; text in the database's encoding.
pub enum Item {
    Notice {
        channel: Rc<[u8]>,
        payload: Vec<u8>,
        delivery: Delivery,
    },
    Job {
        request: Rc<Request>,
        /// A value of type jsonb, as its bytes.
        args: Vec<u8>,
    },
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Notice { payload, .. } => payload.len() + size_of::<Self>(),
            Self::Job { args, .. } => args.len() + size_of::<Self>(),
        }
    }
}

impl Item {
    fn is_same_notice(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Notice {
                    channel: one,
                    payload: says,
                    delivery: how,
                },
                Self::Notice {
                    channel: another,
                    payload: too,
                    delivery: as_well,
                },
            ) => says == too && how == as_well && one == another,
            _ => false,
        }
    }
}

/// Where the items of a savepoint begin.
struct Mark {
    level: i32,
    items: usize,
    bytes: usize,
    /// Notices told by NOTIFY before it.
    told: usize,
}

struct Buffer {
    items: Vec<Item>,
    bytes: usize,
    /// Notices for NOTIFY, those that went out early included.
    told: usize,
    marks: Vec<Mark>,
    /// Notices left out, by channel. Not taken back with a savepoint: one word too many does no harm.
    left_out: BTreeMap<Rc<[u8]>, u64>,
}

/// Above this much, items of the current savepoint go out early, unless they are few.
const MOST_BYTES: usize = 1 << 20;
const MOST_ITEMS: usize = 8192;
const FEW: usize = 256;

thread_local! {
    static BUFFER: RefCell<Buffer> = const {
        RefCell::new(Buffer {
            items: Vec::new(),
            bytes: 0,
            told: 0,
            marks: Vec::new(),
            left_out: BTreeMap::new(),
        })
    };
}

static OBSERVER: Observer = Observer {
    before: Some(before),
    at_end,
    at_savepoint_end,
};

/// Watches transactions end: once, at load.
pub fn init() {
    transaction::observe(&OBSERVER);
}

/// Tells something when the transaction commits.
pub fn add(item: Item) -> Result<()> {
    let level = transaction::nest_level();
    let early = BUFFER.with_borrow_mut(|buffer| {
        buffer.enter(level);
        if buffer.was_just_said(&item) || buffer.is_one_too_many(&item) {
            return None;
        }
        buffer.bytes += item.bytes();
        buffer.items.push(item);
        buffer.take_early()
    });
    early.map_or(Ok(()), flush::out)
}

impl Buffer {
    fn enter(&mut self, level: i32) {
        if self.marks.last().is_none_or(|mark| mark.level < level) {
            self.marks.push(Mark {
                level,
                items: self.items.len(),
                bytes: self.bytes,
                told: self.told,
            });
        }
    }

    /// Whether this savepoint has said the same a moment ago: equal notices of a transaction are told once.
    /// NOTIFY looks at all of them; this spares it the rows of one statement.
    fn was_just_said(&self, item: &Item) -> bool {
        const A_MOMENT: usize = 4;
        let mark = self.marks.last().expect("entered");
        let recent = self.items[mark.items..].iter().rev().take(A_MOMENT);
        recent.into_iter().any(|said| said.is_same_notice(item))
    }

    /// Counts notices for NOTIFY, which the server keeps in memory until the commit: past the limit they
    /// are left out, and one notice says so.
    fn is_one_too_many(&mut self, item: &Item) -> bool {
        let Item::Notice {
            channel,
            delivery: Delivery::Notify,
            ..
        } = item
        else {
            return false;
        };
        if self.told < settings::max_notices() {
            self.told += 1;
            return false;
        }
        *self.left_out.entry(Rc::clone(channel)).or_default() += 1;
        true
    }

    /// The items of the current savepoint, when the buffer is full.
    fn take_early(&mut self) -> Option<Vec<Item>> {
        if self.bytes < MOST_BYTES && self.items.len() < MOST_ITEMS {
            return None;
        }
        let mark = self.marks.last().expect("entered");
        if self.items.len() - mark.items < FEW && self.bytes - mark.bytes < MOST_BYTES {
            return None;
        }
        self.bytes = mark.bytes;
        Some(self.items.split_off(mark.items))
    }

    fn release(&mut self, level: i32) {
        if self.marks.last().is_none_or(|mark| mark.level != level) {
            return;
        }
        let parent_is_known = self
            .marks
            .iter()
            .rev()
            .nth(1)
            .is_some_and(|mark| mark.level == level - 1);
        if parent_is_known {
            self.marks.pop();
        } else if let Some(mark) = self.marks.last_mut() {
            mark.level = level - 1;
        }
    }

    fn roll_back(&mut self, level: i32) {
        while let Some(mark) = self.marks.last().filter(|mark| mark.level >= level) {
            self.items.truncate(mark.items);
            self.bytes = mark.bytes;
            self.told = mark.told;
            self.marks.pop();
        }
    }

    fn clear(&mut self) {
        self.items.clear();
        self.bytes = 0;
        self.told = 0;
        self.marks.clear();
        self.left_out.clear();
    }
}

fn before(what: Before) -> Result<()> {
    let (items, left_out, told) = BUFFER.with_borrow_mut(|buffer| {
        let taken = (
            std::mem::take(&mut buffer.items),
            std::mem::take(&mut buffer.left_out),
            buffer.told,
        );
        buffer.clear();
        taken
    });
    if what == Before::Prepare && told > 0 {
        return Err(Error::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has changed a table watched with delivery notify",
        )
        .detail("The server sends no NOTIFY in a prepared transaction.")
        .hint("Watch the table with delivery => 'relay', or for a queue only; both work with two-phase commit."));
    }
    if !items.is_empty() {
        flush::out(items)?;
    }
    for (channel, count) in left_out {
        flush::left_out(&channel, count);
    }
    Ok(())
}

fn at_end(_end: End) {
    BUFFER.with(|cell| {
        if let Ok(mut buffer) = cell.try_borrow_mut() {
            buffer.clear();
        }
    });
}

fn at_savepoint_end(end: SavepointEnd, level: i32) {
    BUFFER.with(|cell| {
        if let Ok(mut buffer) = cell.try_borrow_mut() {
            match end {
                SavepointEnd::Release => buffer.release(level),
                SavepointEnd::Rollback => buffer.roll_back(level),
            }
        }
    });
}
