//! Where finished jobs are kept: in a table of the window in which they expire, or in the parent of these
//! tables, where retention removes them one by one.

use std::sync::atomic::Ordering;

use crate::errors::Result;
use crate::job::rotation::Pool;
use crate::job::tables::finished_job;
use crate::pg::heap::{self, Key, Table};
use crate::pg::snapshot::{self, Snapshot};
use crate::pg::spi::{self, Plan, Row};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database};
use crate::shared::{self, pending};

/// The tables of windows. Their rows have no failures: these are removed with rows of the parent.
pub static POOL: Pool = Pool {
    parent: "pushy_internal.finished_job",
    kept_until: "expires_at",
};

/// An executor asks for a window after so many rows in the parent since the last request: a few jobs a minute are not worth
/// one.
const WORTH_A_WINDOW: u64 = 64;

/// How much later than its time a row may leave: an eighth of the time it is kept, a minute at least. So
/// jobs of one length of keeping are in ten tables at most.
fn most_late_us(kept_us: i64) -> i64 {
    const LEAST_US: i64 = 60_000_000;
    (kept_us / 8).max(LEAST_US)
}

/// The table for `rows` completed jobs that never failed and are kept for so long, until `expires_at`. As the
/// extension's owner.
pub fn open_for_completed(rows: usize, kept_us: i64, expires_at: Timestamp) -> Result<Table> {
    let late_us = most_late_us(kept_us);
    let table = match POOL.open(expires_at, expires_at.plus_us(late_us))? {
        Some(table) => table,
        None => {
            count_in_parent(rows, late_us, expires_at);
            return open_parent(expires_at);
        }
    };
    heap::check_columns(&table, finished_job::COLUMNS, &finished_job::CHECKED)?;
    Ok(table)
}

/// The table for all other finished jobs.
pub fn open_parent(expires_at: Timestamp) -> Result<Table> {
    let table = heap::open("finished_job")?;
    heap::check_columns(&table, finished_job::COLUMNS, &finished_job::CHECKED)?;
    pending::due(removal_due(expires_at));
    Ok(table)
}

/// When the scheduler should remove a row of the parent that expires at `expires_at`: a little later, so that
/// it removes many at once.
pub fn removal_due(expires_at: Timestamp) -> i64 {
    const TOGETHER_US: i64 = 60_000_000;
    expires_at.plus_us(TOGETHER_US).0
}

/// Asks the scheduler for a window when there are rows enough. Several executors may ask at a time, for the same window or for
/// different ones: one request is taken, the others come again with later rows.
fn count_in_parent(rows: usize, late_us: i64, expires_at: Timestamp) {
    let Some(shared) = shared::get() else { return };
    let Some(database_slot) = shared.find_database(database::current()) else {
        return;
    };
    let rows = rows as u64;
    if database_slot
        .kept_in_parent
        .fetch_add(rows, Ordering::SeqCst)
        + rows
        < WORTH_A_WINDOW
    {
        return;
    }
    database_slot.kept_in_parent.store(0, Ordering::SeqCst);
    if database_slot.windows_taken_until.load(Ordering::SeqCst) > clock::now().0 {
        return;
    }
    let end = window_end(expires_at, late_us);
    let asked =
        database_slot
            .window_wanted
            .compare_exchange(0, end, Ordering::SeqCst, Ordering::SeqCst);
    if asked.is_ok() {
        shared.announce_due(database_slot, 0);
    }
}

/// The end of the window: the same for all rows of so much time, whoever asks first.
fn window_end(expires_at: Timestamp, late_us: i64) -> i64 {
    let over = expires_at.0.rem_euclid(late_us);
    expires_at.plus_us((late_us - over) % late_us).0
}

static WINDOWS: Plan = Plan::new(
    "SELECT c.relname::pg_catalog.text \
       FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid \
      WHERE i.inhparent OPERATOR(pg_catalog.=) 'pushy_internal.finished_job'::pg_catalog.regclass",
    &[],
);

/// All tables that keep finished jobs, the parent first; as the extension's owner, as are the next.
pub fn tables() -> Result<Vec<String>> {
    let mut tables = vec!["finished_job".to_owned()];
    spi::connect(|spi| {
        for row in spi.run(&WINDOWS, &[]).rows() {
            tables.push(row.text(1)?);
        }
        Ok(tables)
    })
}

/// The index of a table's numbers.
pub fn by_id(table: &str) -> String {
    format!("{table}_pkey")
}

/// Looks for a finished job as a snapshot sees it, and answers which table keeps it.
pub fn find(
    id: i64,
    snapshot: &Snapshot,
    mut each: impl FnMut(Row<'_>) -> Result<()>,
) -> Result<Option<String>> {
    for name in tables()? {
        let table = heap::open_for_reading(&name)?;
        let (mut is_there, keys) = (false, [Key::int8_equals(1, id)]);
        table.read_in_order(&by_id(&name), &keys, snapshot, false, |row| {
            is_there = true;
            each(row)?;
            Ok(false)
        })?;
        if is_there {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The highest number below this one of a finished job; 0: there is none.
pub fn highest_id(below: i64) -> Result<i64> {
    let (now, mut highest) = (snapshot::take_latest(), 0);
    for name in tables()? {
        let table = heap::open_for_reading(&name)?;
        let keys = [Key::int8_below(1, below)];
        table.read_in_order(&by_id(&name), &keys, &now, true, |row| {
            highest = highest.max(row.i64(finished_job::ID));
            Ok(false)
        })?;
    }
    Ok(highest)
}
