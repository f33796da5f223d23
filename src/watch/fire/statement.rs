//! Watches with a notice per statement: rows are counted as they fire, and published when the statement's own
//! trigger fires. A statement that names a partition fires none of its parent: its rows are published with the
//! next that does, or before the commit.

use std::cell::RefCell;
use std::rc::Rc;

use super::keys::Keys;
use crate::errors::Result;
use crate::job::current::{self, Cause};
use crate::pg::per_process::PerProcess;
use crate::pg::trigger::{self, Op};
use crate::pg::{transaction, transaction_end};
use crate::watch::cache::CachedWatch;
use crate::watch::notice_json::{PayloadKind, RowChange};
use crate::watch::{content, publish};

/// The rows of one statement so far.
struct OpenStatement {
    watch: Rc<CachedWatch>,
    op: Op,
    /// Of savepoints.
    level: i32,
    /// Of triggers: a trigger of the table may write it again, in a statement of its own.
    depth: i32,
    cause: Option<Cause>,
    keys: Keys,
}

static OPEN: PerProcess<RefCell<Vec<OpenStatement>>> = PerProcess::new(RefCell::new(Vec::new()));

/// Bytes of keys that the arguments of a job have, where no notice bounds them.
const JOB_KEYS_LIMIT: usize = 1 << 20;

fn keys_limit(watch: &CachedWatch) -> usize {
    match watch.channel {
        _ if watch.kind == PayloadKind::None => 0,
        Some(_) => watch.shape.keys_limit(publish::longest(watch, None)),
        None => JOB_KEYS_LIMIT,
    }
}

/// Counts a row. Its key may fail to be written, by a type of a user's.
pub fn add(watch: &Rc<CachedWatch>, op: Op, change: &RowChange<'_>) -> Result<()> {
    let mut open = take(watch, op).unwrap_or_else(|| OpenStatement::new(watch, op));
    let outcome = write(watch, change, &mut open.keys);
    keep(open);
    outcome
}

/// The key of one row, for [`merge`].
pub fn keys_of(watch: &CachedWatch, change: &RowChange<'_>) -> Result<Keys> {
    let mut keys = Keys::new(keys_limit(watch));
    write(watch, change, &mut keys).map(|()| keys)
}

/// Counts a row whose key was written before.
pub fn merge(watch: &Rc<CachedWatch>, op: Op, keys: &Keys) {
    let mut open = take(watch, op).unwrap_or_else(|| OpenStatement::new(watch, op));
    open.keys.merge(keys);
    keep(open);
}

fn write(watch: &CachedWatch, change: &RowChange<'_>, keys: &mut Keys) -> Result<()> {
    let before = keys.length();
    let outcome = content::guarded(watch.shape.can_fail(watch.kind), || {
        watch.shape.add(change, keys);
        Ok(())
    });
    if outcome.is_err() {
        keys.cut(before);
    }
    outcome
}

fn keep(open: OpenStatement) {
    transaction_end::expect();
    OPEN.with_borrow_mut(|all| all.push(open));
}

/// The rows so far of the statement whose trigger fires now.
fn take(watch: &CachedWatch, op: Op) -> Option<OpenStatement> {
    let (level, depth) = (transaction::nest_level(), trigger::depth());
    OPEN.with_borrow_mut(|all| {
        let at = all.iter().rposition(|open| {
            open.watch.definition.watch_id == watch.definition.watch_id
                && open.op == op
                && open.level == level
                && open.depth == depth
        })?;
        Some(all.remove(at))
    })
}

/// The statement is over.
pub fn end(watch: &CachedWatch, op: Op) -> Result<()> {
    while let Some(open) = take(watch, op) {
        open.publish()?;
    }
    Ok(())
}

pub fn is_empty() -> bool {
    OPEN.with_borrow(Vec::is_empty)
}

/// The transaction is about to commit: what no statement's trigger has published.
pub fn end_all() -> Result<()> {
    while let Some(open) = OPEN.with_borrow_mut(|all| (!all.is_empty()).then(|| all.remove(0))) {
        open.publish()?;
    }
    Ok(())
}

/// The same for what was counted in the current savepoint, outside any trigger.
pub fn end_here() -> Result<()> {
    if trigger::depth() > 0 {
        return Ok(());
    }
    let level = transaction::nest_level();
    let next = |all: &mut Vec<OpenStatement>| {
        let at = all.iter().position(|open| open.level == level)?;
        Some(all.remove(at))
    };
    while let Some(open) = OPEN.with_borrow_mut(next) {
        open.publish()?;
    }
    Ok(())
}

impl OpenStatement {
    fn new(watch: &Rc<CachedWatch>, op: Op) -> Self {
        Self {
            watch: Rc::clone(watch),
            op,
            level: transaction::nest_level(),
            depth: trigger::depth(),
            cause: current::cause(),
            keys: Keys::new(keys_limit(watch)),
        }
    }

    fn publish(&self) -> Result<()> {
        current::on_behalf_of(self.cause, || {
            publish::statement(&self.watch, self.op, &self.keys)
        })
    }
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
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn forget(level: i32) {
    OPEN.with(|cell| {
        if let Ok(mut all) = cell.try_borrow_mut() {
            all.retain(|open| open.level < level);
        }
    });
}
