//! The trigger functions: a row or a statement of a watched table has changed.

use std::rc::Rc;

use crate::errors::Result;
use crate::pg::slot::Slot;
use crate::pg::trigger::{Firing, Op};
use crate::trigger_function;
use crate::watch::cache::{self, CachedWatch};
use crate::watch::{content, partition_move, publish, statement};

trigger_function!(pushy_watch_row_v1, "pushy.watch_row()", |firing| row(
    firing
));
trigger_function!(
    pushy_watch_statement_v1,
    "pushy.watch_statement()",
    |firing| { of_statement(firing) }
);

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub(super) fn row(firing: Firing) -> Result<()> {
    if !firing.is_for_row() {
        return Err(super::read::not_ours(firing));
    }
    let Some(watch) = cache::of(firing)? else {
        return Ok(());
    };
    let op = firing.op();
    let unchecked = op == Op::Update && !firing.has_condition();
    if !watch.is_partitioned {
        return changed(&watch, op, firing.old_row(), firing.new_row(), unchecked);
    }
    let layout = watch.layout(firing);
    let (old_slot, new_slot) = (watch.new_slot(), watch.new_slot());
    let old = firing.old_row().map(|row| match &layout {
        Some(layout) => old_slot.mapped(row, layout),
        None => row,
    });
    let new = firing.new_row().map(|row| match &layout {
        Some(layout) => new_slot.mapped(row, layout),
        None => row,
    });
    match op {
        Op::Delete => {
            if let Some(command) = firing.old_row().and_then(Slot::moved_by) {
                return partition_move::left_partition(
                    &watch,
                    command,
                    old.expect("a delete has an old row"),
                );
            }
        }
        Op::Insert => {
            let command = firing.new_row().map(Slot::inserted_by);
            if let Some(left) = partition_move::arrived(&watch, command) {
                return changed(&watch, Op::Update, Some(left.row()), new, true);
            }
        }
        Op::Update | Op::Truncate => {}
    }
    changed(&watch, op, old, new, unchecked)
}

/// `unchecked`: an update whose watched columns nobody has compared yet.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub(in crate::watch) fn changed(
    watch: &Rc<CachedWatch>,
    op: Op,
    old: Option<Slot<'_>>,
    new: Option<Slot<'_>>,
    unchecked: bool,
) -> Result<()> {
    if watch.counts(op) {
        content::now(watch, op, old, new, unchecked)?.publish(watch, op)
    } else {
        Ok(())
    }
}

fn of_statement(firing: Firing) -> Result<()> {
    let Some(watch) = cache::of(firing)? else {
        return Ok(());
    };
    if firing.op() == Op::Truncate {
        return publish::truncated(&watch);
    }
    partition_move::publish_as_deletes(&watch)?;
    statement::end(&watch, firing.op())
}
