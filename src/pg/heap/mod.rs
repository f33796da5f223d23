//! Rows of Pushy's own tables without parser and planner: for what happens once per job.
//!
//! A plan is made for the table as it is then: one made while the table was small reads all of it, dead
//! rows included, when it has grown. Here the access path is the code. No rights are checked: the tables
//! are ours. They have no rules and policies; their triggers (write_guard.sql) do not fire here.

mod append;
pub mod append_only;
pub mod by_address;
mod finder;
mod key;
mod keyed;
mod partial;
mod scan;
pub mod size;
mod unique;
mod update;

use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::pg_sys::{self, Oid};

use super::guard::guarded;
use super::spi::{Row, Tid};
use super::{ereport, identity, installed, invalidation, major, snapshot};
use crate::errors::{Error, Result, SqlState};

pub(super) use append::Slots;
pub use key::Key;
pub use keyed::{Holder, ShareLock};
pub use scan::{Asked, Locked};
pub use unique::Unique;

/// A table of schema pushy_internal, open until the transaction ends.
pub struct Table(pg_sys::Relation);

// Called within our guard.
extern "C-unwind" {
    fn try_table_open(relation: Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(relation: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn simple_heap_delete(relation: pg_sys::Relation, tid: pg_sys::ItemPointer);
}

/// Opens a table for writing.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn open(name: &str) -> Result<Table> {
    let oid = find(name)?;
    let lock = pg_sys::RowExclusiveLock as pg_sys::LOCKMODE;
    let table = open_unless_gone(oid, lock)?;
    table.require_heap(name)?;
    Ok(table)
}

/// A table by its number, unless that was dropped while its lock was waited for. The lock is kept until the transaction ends.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn open_unless_gone(oid: Oid, lock: pg_sys::LOCKMODE) -> Result<Table> {
    // SAFETY: any number will do, and what is answered is open.
    let relation = unsafe { guarded(|| try_table_open(oid, lock)) };
    if relation.is_null() {
        return Err(installed::gone());
    }
    Ok(Table(relation))
}

/// A table open for reading, and locked against being emptied, until it is dropped.
pub struct ForReading {
    table: Option<Table>,
    oid: Oid,
}

const READ_LOCK: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;

pub fn open_for_reading(name: &str) -> Result<ForReading> {
    let oid = find(name)?;
    let table = ForReading {
        table: Some(open_unless_gone(oid, READ_LOCK)?),
        oid,
    };
    table.require_heap(name)?;
    Ok(table)
}

impl std::ops::Deref for ForReading {
    type Target = Table;

    fn deref(&self) -> &Table {
        self.table.as_ref().expect("open until dropped")
    }
}

impl Drop for ForReading {
    fn drop(&mut self) {
        self.table = None;
        // After an ERROR the abort lets go of it.
        if !std::thread::panicking() {
            // SAFETY: taken when it was opened.
            unsafe { pg_sys::UnlockRelationOid(self.oid, READ_LOCK) }
        }
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
fn find(name: &str) -> Result<Oid> {
    identity::internal_relation(name).ok_or_else(|| is_missing(name))
}

/// The access method 'heap' in pg_am.dat; bindings of some versions lack its constant.
const HEAP: u32 = 2;

#[cold]
fn is_no_heap(name: &str) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("table pushy_internal.{name} has another access method than heap"),
    )
    .hint(format!(
        "Dump the extension's tables and create it again; from PostgreSQL 15 on ALTER TABLE pushy_internal.{name} SET ACCESS METHOD heap does it too."
    ))
}

#[cold]
fn is_missing(name: &str) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("relation pushy_internal.{name} does not exist"),
    )
    .hint("Run: CREATE EXTENSION pushy")
}

impl Drop for Table {
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    fn drop(&mut self) {
        // After an ERROR the resource owner lets go of it.
        if !std::thread::panicking() {
            // SAFETY: opened by open(), in the same resource owner; the lock stays.
            unsafe { guarded(|| table_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE)) }
        }
    }
}

impl Table {
    pub(super) fn raw(&self) -> pg_sys::Relation {
        self.0
    }

    /// Refuses a table of another access method: its rows are not where a heap has them, and writing them as a heap does
    /// corrupts it. The install script says USING heap; ALTER TABLE … SET ACCESS METHOD may have said something else.
    fn require_heap(&self, name: &str) -> Result<()> {
        // SAFETY: an open relation.
        if unsafe { (*(*self.0).rd_rel).relam.to_u32() } == HEAP {
            return Ok(());
        }
        Err(is_no_heap(name))
    }

    /// The file that the rows are in: another one where the table was rewritten (CLUSTER, ALTER TABLE), with every row elsewhere.
    pub fn file(&self) -> u32 {
        // SAFETY: open.
        major::file_of(unsafe { &*self.0 })
    }

    /// Deletes rows that this transaction has locked, and that are in the file where it has found them.
    pub fn delete(&self, rows: impl Iterator<Item = Tid>) {
        let mut rows: Vec<_> = rows.map(Tid::raw).collect();
        // SAFETY: rows of this table, locked by us: nobody can have changed them. One guard for all.
        unsafe {
            guarded(|| {
                for tid in &mut rows {
                    simple_heap_delete(self.0, tid);
                }
            });
        }
    }
}

/// Makes what this transaction has just written visible to its next statement.
pub fn advance_command() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// Whether a table has exactly the columns that the code was written for: not so with an old script and a
/// new library, or the other way round, or where somebody has altered it. Looked at again when the table may be another;
/// `checked` keeps which table was found to be so, and when.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn check_columns(table: &Table, names: &[&str], checked: &AtomicU64) -> Result<()> {
    // SAFETY: open.
    let oid = unsafe { (*table.0).rd_id };
    let now = u64::from(oid.to_u32()) << 32 | invalidation::generation() & u64::from(u32::MAX);
    if checked.load(Ordering::Relaxed) == now {
        return Ok(());
    }
    invalidation::depend_on(oid);
    compare_columns(table, names)?;
    checked.store(now, Ordering::Relaxed);
    Ok(())
}

#[cold]
fn compare_columns(table: &Table, names: &[&str]) -> Result<()> {
    // SAFETY: the descriptor and its attributes live as long as the table is open.
    let fits = unsafe {
        let count = (*(*table.0).rd_att).natts as usize;
        count == names.len()
            && names.iter().enumerate().all(|(at, name)| {
                let attribute = pg_sys::get_attname((*table.0).rd_id, at as i16 + 1, true);
                !attribute.is_null() && CStr::from_ptr(attribute).to_bytes() == name.as_bytes()
            })
    };
    if fits {
        return Ok(());
    }
    // SAFETY: open.
    let error = has_other_columns(unsafe { (*table.0).rd_id });
    Err(error.detail(format!(
        "Its columns in their order should be: {}.",
        names.join(", ")
    )))
}

/// Raised for rows that do not fit, where nobody has looked at the columns since a handler has altered them in its own transaction.
#[cold]
fn refuse_columns(table: Oid) -> ! {
    ereport::raise(&has_other_columns(table))
}

fn has_other_columns(table: Oid) -> Error {
    let table = identity::relation_name(table);
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("table {table} does not fit the loaded library: its columns are others"),
    )
    .hint("Undo what somebody has altered, or run ALTER EXTENSION pushy UPDATE, and restart the server if the library was replaced while it ran.")
}

/// Reads the rows that an index of a table has of these keys, as they are at this moment, until `each` says that it has
/// enough (false). No predicate lock remembers it: [`Table::read_in_order`]. Where they are is not said, because the table's lock is given
/// back, and somebody may rewrite it (VACUUM FULL).
pub fn read_now(
    table: &str,
    (columns, checked): (&[&str], &AtomicU64),
    index: &str,
    keys: &[Key],
    mut each: impl FnMut(Row<'_>) -> Result<bool>,
) -> Result<()> {
    let table = open_for_reading(table)?;
    check_columns(&table, columns, checked)?;
    let each = |row: Row<'_>, _: Tid| each(row);
    table.walk(index, keys, &snapshot::take_latest(), false, each)
}

/// The same of rows that this transaction may change: they stay where they are until its end, because it keeps the table's lock.
pub fn read_to_change(
    table: &str,
    (columns, checked): (&[&str], &AtomicU64),
    index: &str,
    keys: &[Key],
    each: impl FnMut(Row<'_>, Tid) -> Result<bool>,
) -> Result<()> {
    let table = open(table)?;
    check_columns(&table, columns, checked)?;
    table.walk(index, keys, &snapshot::take_latest(), false, each)
}

/// Whether a table has rows at this moment.
pub fn has_rows(table: &str) -> Result<bool> {
    let (index, mut any) = (format!("{table}_pkey"), false);
    let table = open_for_reading(table)?;
    table.read_in_order(&index, &[], &snapshot::take_latest(), false, |_| {
        any = true;
        Ok(false)
    })?;
    Ok(any)
}

/// Locks the row that a unique index of a table has of these keys: [`Table::lock_now`].
pub fn lock_now<T>(
    table: &str,
    (columns, checked): (&[&str], &AtomicU64),
    index: &str,
    keys: &[Key],
    holder: Holder<'_>,
    take: impl FnMut(Row<'_>, Tid) -> Result<T>,
) -> Result<Option<T>> {
    let table = open(table)?;
    check_columns(&table, columns, checked)?;
    table.lock_now(index, keys, holder, take)
}

/// Locks the same row and reads nothing of it, before SQL that would wait for it and not say for whom. False where there is none.
pub fn lock_before_write(
    table: &str,
    index: &str,
    keys: &[Key],
    what: &dyn Fn() -> String,
) -> Result<bool> {
    let holder = Holder::WaitedFor(what);
    let locked = open(table)?.lock_now(index, keys, holder, |_, _| Ok(()))?;
    Ok(locked.is_some())
}

/// Deletes the rows of these jobs, by which the index begins: [`Table::delete_of`].
pub fn delete_of_jobs(table: &str, index: &str, jobs: &[i64]) -> Result<()> {
    let table = open(table)?;
    for job in jobs {
        table.delete_of(index, &[Key::int8_equals(1, *job)])?;
    }
    Ok(())
}

/// The columns of a table in its order: their names, and their numbers from 1.
#[macro_export]
macro_rules! columns {
    ($($number:ident $name:literal),* $(,)?) => {
        pub const COLUMNS: &[&str] = &[$($name),*];

        #[allow(dead_code, non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number {
            NONE,
            $($number),*
        }

        $(
            #[allow(dead_code)]
            pub const $number: i32 = Number::$number as i32;
        )*
    };
}
