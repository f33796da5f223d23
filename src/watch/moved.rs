//! Rows that an UPDATE moves to another partition. The server fires a delete there and an insert here, one
//! right after the other; together they are the update that the user wrote.

use std::cell::RefCell;
use std::rc::Rc;

use super::fire;
use super::known::Known;
use crate::errors::Result;
use crate::pg::slot::{OwnSlot, Slot};
use crate::pg::transaction;
use crate::pg::trigger::Op;

/// A row that has left its partition and has not arrived in another yet.
pub struct Left {
    /// The row before, in the layout of the watched table; dropped before the watch that owns its memory.
    row: OwnSlot,
    watch: Rc<Known>,
    command: u32,
    level: i32,
}

impl Left {
    pub fn row(&self) -> Slot<'_> {
        self.row.filled()
    }
}

thread_local! {
    /// At most one per watch.
    static LEFT: RefCell<Vec<Left>> = const { RefCell::new(Vec::new()) };
}

/// Remembers a row that `command` has moved away.
pub fn left(watch: &Rc<Known>, command: u32, row: Slot<'_>) -> Result<()> {
    give_up(Some(watch))?;
    let copy = watch.new_slot();
    copy.copied(row, &watch.context);
    let left = Left {
        row: copy,
        watch: Rc::clone(watch),
        command,
        level: transaction::nest_level(),
    };
    LEFT.with_borrow_mut(|all| all.push(left));
    Ok(())
}

/// The row that the same command has moved away, if it is this one that arrives.
pub fn arrived(watch: &Known, command: Option<u32>) -> Option<Left> {
    let of_watch = |left: &Left| left.watch.definition.watch_id == watch.definition.watch_id;
    LEFT.with_borrow_mut(|all| {
        let at = all
            .iter()
            .position(|left| of_watch(left) && Some(left.command) == command)?;
        Some(all.swap_remove(at))
    })
}

/// Rows that did not arrive: a trigger has stopped the insert. They are deleted, then. Of one watch, or of all.
pub fn give_up(watch: Option<&Known>) -> Result<()> {
    loop {
        let lost = LEFT.with_borrow_mut(|all| {
            let at = all.iter().position(|left| {
                watch
                    .is_none_or(|watch| left.watch.definition.watch_id == watch.definition.watch_id)
            })?;
            Some(all.swap_remove(at))
        });
        match lost {
            Some(left) => fire::changed(&left.watch, Op::Delete, Some(left.row()), None, false)?,
            None => return Ok(()),
        }
    }
}

/// A savepoint of this level is undone, and what it has moved; 0: the transaction has ended.
pub fn forget(level: i32) {
    LEFT.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|left| left.level < level);
        }
    });
}
