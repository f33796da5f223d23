//! What the current transaction will publish, kept in order and per savepoint until just before its commit.
//!
//! Bounded: past a limit jobs, and notices for the log, of the current savepoint go out early. That is as good,
//! because the tables follow savepoints as well. Notices for NOTIFY are limited in number.

pub use super::item::{Item, Route};
use super::item_list::{ItemList, Length};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::flush;
use super::repeats::Repeat;
use crate::errors::{Error, Result, SqlState};
use crate::log;
use crate::pg::heap;
use crate::pg::identifier;
use crate::pg::per_process::PerProcess;
use crate::pg::transaction;
use crate::pg::transaction_end::{self, Before, End, Observer, SavepointEnd};
use crate::settings;

/// Where the items of a savepoint begin.
struct SavepointStart {
    level: i32,
    notices: Length,
    rest: Length,
    /// How many items of `rest` from before this savepoint were written out inside it, ahead of its own. They stay in
    /// `rest`: a rollback to the savepoint takes back what was written.
    copied: usize,
    /// Notices emitted by NOTIFY before it.
    kept: usize,
}

struct Buffer {
    /// For NOTIFY, which delivers them in the order in which it gets them.
    notices: ItemList,
    /// Jobs, and what is logged.
    rest: ItemList,
    /// Notices for NOTIFY, those that went out early included.
    kept: usize,
    marks: Vec<SavepointStart>,
    /// Notices left out, by channel. Not taken back with a savepoint: one word too many does no harm.
    left_out: BTreeMap<Rc<[u8]>, u64>,
}

static BUFFER: PerProcess<RefCell<Buffer>> = PerProcess::new(RefCell::new(Buffer {
    notices: ItemList::EMPTY,
    rest: ItemList::EMPTY,
    kept: 0,
    marks: Vec::new(),
    left_out: BTreeMap::new(),
}));

static OBSERVER: Observer = Observer {
    before: Some(before),
    at_end,
    at_savepoint_end,
};

/// Watches transactions end: once, at load.
pub fn init() {
    transaction_end::observe(&OBSERVER);
}

/// Publishes something when the transaction commits.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn add(item: Item) -> Result<()> {
    transaction_end::expect();
    let level = transaction::nest_level();
    let early = BUFFER.with_borrow_mut(|buffer| {
        buffer.enter(level);
        if buffer.is_settled(&item) || (item.is_for_notify() && buffer.is_one_too_many(&item)) {
            return None;
        }
        buffer.put(item)
    });
    early.map_or(Ok(()), |items| flush::out(&items))
}

/// Writes jobs and logged notices to their tables before the transaction ends; a rollback to a savepoint takes them back.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn flush_early() -> Result<()> {
    let items = BUFFER.with_borrow_mut(|buffer| {
        if buffer.rest.items.is_empty() {
            return Vec::new();
        }
        buffer.enter(transaction::nest_level());
        let from = buffer.marks.last().expect("entered").rest;
        buffer.take_rest(from)
    });
    if !items.is_empty() {
        flush::out(&items)?;
        heap::advance_command();
    }
    Ok(())
}

/// Refuses what the transaction has to publish, if the commit would because it is above the role's share of the event log.
pub fn expect_share() -> Result<()> {
    if settings::log_max_size_per_role() == 0 {
        return Ok(());
    }
    let at_most = BUFFER.with_borrow(|buffer| {
        let rest = buffer.unwritten();
        // The pile's bytes hold the payloads.
        let channels = rest.len() * log::counted_bytes(&[0; identifier::LIMIT], None, b"");
        if rest.is_empty() {
            0
        } else {
            buffer.rest.bytes + channels
        }
    });
    log::expect_share(at_most, || {
        BUFFER.with_borrow(|buffer| flush::counted_bytes(buffer.unwritten()))
    })
}

impl Buffer {
    /// Jobs and logged notices that have not gone out.
    fn unwritten(&self) -> &[Item] {
        let gone = self.marks.iter().map(|mark| mark.copied).max();
        &self.rest.items[gone.unwrap_or(0)..]
    }

    fn enter(&mut self, level: i32) {
        if self.marks.last().is_none_or(|mark| mark.level < level) {
            self.marks.push(SavepointStart {
                level,
                notices: self.notices.length(),
                rest: self.rest.length(),
                copied: 0,
                kept: self.kept,
            });
        }
    }

    /// Whether one of the last items of this savepoint says the same, so that the new one need not be kept; an equal item
    /// that the new one replaces is forgotten. At the commit all are compared (see [`super::repeats`]); this spares the
    /// memory for the rows of one statement.
    fn is_settled(&mut self, item: &Item) -> bool {
        const A_MOMENT: usize = 4;
        let Some(says) = item.key().filter(|says| says.repeat != Repeat::Counts) else {
            return false;
        };
        let mark = self.marks.last().expect("entered");
        let (pile, from) = if item.is_for_notify() {
            (&mut self.notices, mark.notices.items)
        } else {
            (&mut self.rest, mark.rest.items)
        };
        let recent = from.max(pile.items.len().saturating_sub(A_MOMENT))..pile.items.len();
        for index in recent.rev() {
            let Some(key) = pile.items[index].key() else {
                continue;
            };
            if key.is_same(&says) && key.repeat == says.repeat {
                if says.repeat == Repeat::Replaces && index + 1 < pile.items.len() {
                    pile.remove(index);
                    self.kept -= usize::from(item.is_for_notify());
                    return false;
                }
                return true;
            }
            if says.repeat == Repeat::Follows && key.channel == says.channel {
                return false;
            }
        }
        false
    }

    /// Counts notices for NOTIFY, which the server keeps in memory until the commit: past the limit they
    /// are left out, and one notice says so.
    fn is_one_too_many(&mut self, item: &Item) -> bool {
        let Item::Notice { channel, .. } = item else {
            return false;
        };
        if self.kept < settings::max_notices() {
            self.kept += 1;
            return false;
        }
        *self.left_out.entry(Rc::clone(channel)).or_default() += 1;
        true
    }

    /// Keeps an item; answers those of the current savepoint that go out now, when there are too many.
    fn put(&mut self, item: Item) -> Option<Vec<Item>> {
        let mark = self.marks.last().expect("entered");
        if item.is_for_notify() {
            // Notices for NOTIFY wait for the commit, where equal ones are found; `is_one_too_many` limits them.
            self.notices.push(item);
            return None;
        }
        let from = mark.rest;
        self.rest.push(item);
        self.rest.is_full(from).then(|| self.take_rest(from))
    }

    /// Takes the items of the current savepoint from `rest`, behind a copy of those from before the savepoint that have not
    /// gone out.
    fn take_rest(&mut self, from: Length) -> Vec<Item> {
        let gone = self.marks.iter().map(|mark| mark.copied).max();
        let ahead = gone.unwrap_or(0)..from.items;
        let mut items = self.rest.items[ahead].to_vec();
        items.append(&mut self.rest.take(from));
        self.marks.last_mut().expect("entered").copied = from.items;
        items
    }

    fn release(&mut self, level: i32) {
        if self.marks.last().is_none_or(|mark| mark.level != level) {
            return;
        }
        let [.., parent, ended] = &mut self.marks[..] else {
            self.marks[0].level = level - 1;
            return;
        };
        if parent.level != level - 1 {
            ended.level = level - 1;
            return;
        }
        if ended.copied > 0 {
            // The parent's own items are out for good; those from before the parent, unless it is rolled back.
            self.rest.drop_between(parent.rest, ended.rest);
            parent.copied = parent.rest.items;
        }
        self.marks.pop();
    }

    fn roll_back(&mut self, level: i32) {
        while let Some(mark) = self.marks.last().filter(|mark| mark.level >= level) {
            self.notices.cut(mark.notices);
            self.rest.cut(mark.rest);
            self.kept = mark.kept;
            self.marks.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        self.notices.clear();
        self.rest.clear();
        self.kept = 0;
        self.marks.clear();
        if !self.left_out.is_empty() {
            self.left_out.clear();
        }
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn before(what: Before) -> Result<()> {
    let (notices, rest, left_out, kept) = BUFFER.with_borrow_mut(|buffer| {
        let taken = (
            buffer.notices.take_all(),
            buffer.rest.take_all(),
            std::mem::take(&mut buffer.left_out),
            buffer.kept,
        );
        buffer.clear();
        taken
    });
    if what == Before::Prepare && kept > 0 {
        return Err(Error::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            "cannot PREPARE a transaction that has changed a table watched with delivery notify",
        )
        .detail("The server sends no NOTIFY in a prepared transaction.")
        .hint("Watch the table with delivery => 'relay', or for a queue only; both work with two-phase commit."));
    }
    flush::notify(&notices);
    flush::out(&rest)?;
    // Notices that writing the jobs has added: that one was discarded at its birth.
    flush_early()?;
    if !left_out.is_empty() {
        for (channel, count) in left_out {
            flush::left_out(&channel, count);
        }
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.notices.reuse(notices);
        buffer.rest.reuse(rest);
    });
    Ok(())
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
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
