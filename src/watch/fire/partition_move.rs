//! Rows that an UPDATE moves to another partition. The server fires a delete there and an insert here, one
//! right after the other; together they are the update that the user wrote. Whether there is a second is known only when
//! something else happens, which may be the commit: what would be published of the delete alone is made when the first fires
//! ([`content`]), because code of users that ran later would run as somebody else, with another's search_path, and where no
//! timeout stops it.

use std::cell::RefCell;
use std::rc::Rc;

use crate::errors::Result;
use crate::job::current::{self, Cause};
use crate::pg::per_process::PerProcess;
use crate::pg::slot::{OwnSlot, Slot};
use crate::pg::trigger::Op;
use crate::pg::{transaction, transaction_end};
use crate::watch::cache::CachedWatch;
use crate::watch::content::{self, Content};

/// A row that has left its partition and has not arrived in another yet.
pub struct PartitionMove {
    /// The row before, in the layout of the watched table; dropped before the watch that owns its memory.
    row: OwnSlot,
    watch: Rc<CachedWatch>,
    command: u32,
    level: i32,
    cause: Option<Cause>,
    /// What is published if it does not arrive.
    content: Content,
}

impl PartitionMove {
    fn is_of(&self, watch: &CachedWatch) -> bool {
        self.watch.definition.watch_id == watch.definition.watch_id
    }

    pub fn row(&self) -> Slot<'_> {
        self.row.filled()
    }
}

/// At most one per watch and savepoint.
static LEFT: PerProcess<RefCell<Vec<PartitionMove>>> = PerProcess::new(RefCell::new(Vec::new()));

/// Remembers a row that `command` has moved away.
pub fn left_partition(watch: &Rc<CachedWatch>, command: u32, row: Slot<'_>) -> Result<()> {
    publish_as_deletes(watch)?;
    let copy = watch.new_slot();
    copy.copied(row, &watch.context);
    let content = if watch.counts(Op::Delete) {
        content::ahead(watch, Op::Delete, Some(row), None)?
    } else {
        Content::Nothing
    };
    let left = PartitionMove {
        row: copy,
        watch: Rc::clone(watch),
        command,
        level: transaction::nest_level(),
        cause: current::cause(),
        content,
    };
    transaction_end::expect();
    LEFT.with_borrow_mut(|all| all.push(left));
    Ok(())
}

/// The row that the same command has moved away, if it is this one that arrives.
pub fn arrived(watch: &CachedWatch, command: Option<u32>) -> Option<PartitionMove> {
    take(|left| left.is_of(watch) && Some(left.command) == command)
}

/// Rows of a watch that this savepoint has moved and that did not arrive: a trigger has stopped the insert.
/// They are deleted, then.
pub fn publish_as_deletes(watch: &CachedWatch) -> Result<()> {
    let level = transaction::nest_level();
    publish_all_as_deletes(|left| left.is_of(watch) && left.level == level)
}

pub fn is_empty() -> bool {
    LEFT.with_borrow(Vec::is_empty)
}

/// The transaction is about to commit: all that did not arrive.
pub fn end_all() -> Result<()> {
    publish_all_as_deletes(|_| true)
}

/// Rows that this savepoint has moved and that did not arrive.
pub fn end_here() -> Result<()> {
    let level = transaction::nest_level();
    publish_all_as_deletes(|left| left.level == level)
}

fn publish_all_as_deletes(which: impl Fn(&PartitionMove) -> bool) -> Result<()> {
    while let Some(left) = take(&which) {
        transaction_end::later(|| {
            current::on_behalf_of(left.cause, || left.content.publish(&left.watch, Op::Delete))
        })?;
    }
    Ok(())
}

fn take(which: impl Fn(&PartitionMove) -> bool) -> Option<PartitionMove> {
    LEFT.with_borrow_mut(|all| {
        let at = all.iter().position(which)?;
        Some(all.remove(at))
    })
}

/// A savepoint is released: what it has moved belongs to the level above.
pub fn raise(level: i32) {
    LEFT.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            for left in all.iter_mut().filter(|left| left.level >= level) {
                left.level = level - 1;
            }
        }
    });
}

/// A savepoint of this level is undone, and what it has moved; 0: the transaction has ended.
pub fn forget(level: i32) {
    LEFT.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|left| left.level < level);
        }
    });
}
