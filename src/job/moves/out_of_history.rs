//! A finished job taken out of the history, from whichever table keeps it.

use crate::errors::Result;
use crate::job::history;
use crate::job::tables::finished_job;
use crate::pg::heap::{self, Holder, Key, Table};
use crate::pg::snapshot;
use crate::pg::spi::{Row, Tid};

/// A finished job whose row this transaction has locked.
pub struct Kept<T> {
    pub job: T,
    table: Table,
    tid: Tid,
}

/// Locks a finished job, and reads it; None where it is not kept any more.
pub fn lock<T>(id: i64, mut read: impl FnMut(Row<'_>) -> T) -> Result<Option<Kept<T>>> {
    let Some(name) = history::find(id, &snapshot::take_latest(), |_| Ok(()))? else {
        return Ok(None);
    };
    let table = heap::open(&name)?;
    heap::check_columns(&table, finished_job::COLUMNS, &finished_job::CHECKED)?;
    let keys = [Key::int8_equals(1, id)];
    let take = |row: Row<'_>, tid| Ok((read(row), tid));
    let what = || format!("job {id}");
    let holder = Holder::WaitedFor(&what);
    let locked = table.lock_now(&history::by_id(&name), &keys, holder, take)?;
    Ok(locked.map(|(job, tid)| Kept { job, table, tid }))
}

impl<T> Kept<T> {
    /// Removes it from the history.
    pub fn remove(self) {
        self.table.delete(std::iter::once(self.tid));
        heap::advance_command();
    }
}
