//! Watches with a notice per statement: rows are counted as they fire, and told when the statement's own
//! trigger fires, or before the commit (a statement that names a partition fires none of its parent).

use std::cell::RefCell;
use std::rc::Rc;

use super::known::Known;
use super::payload::{Change, Keys, Kind};
use super::tell;
use crate::errors::Result;
use crate::pg::notify;
use crate::pg::subtransaction::CallError;
use crate::pg::transaction;
use crate::pg::trigger::Op;

/// The rows of one statement so far.
struct Open {
    watch: Rc<Known>,
    op: Op,
    level: i32,
    keys: Keys,
}

thread_local! {
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
}

/// Bytes of keys that the arguments of a job have, where no notice bounds them.
const ROOM_OF_JOB: usize = 1 << 20;

fn room(watch: &Known) -> usize {
    match watch.channel {
        _ if watch.kind == Kind::None => 0,
        Some(_) => watch.shape.room_for_keys(notify::PAYLOAD_LIMIT),
        None => ROOM_OF_JOB,
    }
}

/// Counts a row. Its key may fail to be written, by a type of a user's.
pub fn add(watch: &Rc<Known>, op: Op, change: &Change<'_>) -> std::result::Result<(), CallError> {
    let level = transaction::nest_level();
    let watch_id = watch.definition.watch_id;
    let mut keys = take(watch_id, op, level).unwrap_or_else(|| Keys::new(room(watch)));
    let outcome = tell::guarded(watch.shape.can_fail(watch.kind), || {
        watch.shape.add(change, &mut keys);
        Ok(())
    });
    OPEN.with_borrow_mut(|open| {
        open.push(Open {
            watch: Rc::clone(watch),
            op,
            level,
            keys,
        });
    });
    outcome
}

fn take(watch_id: i32, op: Op, level: i32) -> Option<Keys> {
    OPEN.with_borrow_mut(|all| {
        let at = all.iter().position(|open| {
            open.watch.definition.watch_id == watch_id && open.op == op && open.level == level
        })?;
        Some(all.swap_remove(at).keys)
    })
}

/// The statement is over.
pub fn end(watch: &Rc<Known>, op: Op) -> Result<()> {
    match take(watch.definition.watch_id, op, transaction::nest_level()) {
        Some(keys) => tell::statement(watch, op, &keys),
        None => Ok(()),
    }
}

/// The transaction is about to commit: what no statement's trigger has told.
pub fn end_all() -> Result<()> {
    while let Some(open) = OPEN.with_borrow_mut(Vec::pop) {
        tell::statement(&open.watch, open.op, &open.keys)?;
    }
    Ok(())
}

/// A savepoint is released: its rows belong to the level above.
pub fn raise(level: i32) {
    OPEN.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            for open in all.iter_mut().filter(|open| open.level >= level) {
                open.level = level - 1;
            }
        }
    });
}

/// A savepoint of this level is undone; 0: the transaction has ended.
pub fn forget(level: i32) {
    OPEN.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|open| open.level < level);
        }
    });
}
