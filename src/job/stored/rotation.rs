//! Tables that take turns. A pool of tables of one shape, children of one parent, made by the install script;
//! each, while in use, takes the rows of a window of time and is emptied as a whole when that is over, so
//! that removing costs nothing per row: no index on the time, no deletion, no vacuum.
//!
//! Only a scheduler assigns and empties, in transactions of its own. A writer caches which table has which
//! window. Once it has locked the table it compares the cache with a counter in shared memory, which changes at the commit
//! of each change: emptying takes a lock that conflicts with the writer's.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::Ordering;

use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::errors::Result;
use crate::job::tables::rotation as table;
use crate::params;
use crate::pg::heap::{self, Table};
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::table_lock::{self, Lock};
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, size, BuiltinOid};
use crate::shared::{self, pending};

/// Tables that take turns.
pub struct Pool {
    /// Their parent, qualified.
    pub parent: &'static str,
    /// The column that says until when a row is kept.
    pub kept_until: &'static str,
}

/// A table in use.
pub struct Window {
    pub member: String,
    pub removes_after: Timestamp,
}

struct Cached {
    generation: u64,
    windows: Rc<[Window]>,
}

static CACHE: PerProcess<RefCell<FxHashMap<&'static str, Cached>>> =
    PerProcess::new(RefCell::new(FxHashMap::with_hasher(FxBuildHasher)));

/// The counter of changes; None without the preload.
fn generation() -> Option<u64> {
    let database_slot = shared::get()?.find_database(database::current())?;
    Some(database_slot.rotations.load(Ordering::SeqCst))
}

static SET_FREE: Plan = Plan::new(
    "UPDATE pushy_internal.rotation SET is_free = true WHERE member OPERATOR(pg_catalog.=) $1::pg_catalog.name",
    &[BuiltinOid::TEXTOID],
);

static ASSIGN_FREE: Plan = Plan::new(
    "UPDATE pushy_internal.rotation SET is_free = false, removes_after = $2 \
      WHERE member OPERATOR(pg_catalog.=) ( \
              SELECT r.member FROM pushy_internal.rotation r WHERE r.pool OPERATOR(pg_catalog.=) $1 AND r.is_free \
               ORDER BY r.member LIMIT 1 FOR UPDATE SKIP LOCKED)",
    &[BuiltinOid::TEXTOID, BuiltinOid::TIMESTAMPTZOID],
);

// A table that is free and not empty holds what a restore has brought.
static ASSIGN: Plan = Plan::new(
    "INSERT INTO pushy_internal.rotation (pool, member, removes_after) \
     SELECT $1, c.relname, $2 \
       FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid \
      WHERE i.inhparent OPERATOR(pg_catalog.=) $1::pg_catalog.regclass \
        AND NOT EXISTS (SELECT 1 FROM pushy_internal.rotation r WHERE r.member OPERATOR(pg_catalog.=) c.relname) \
        AND pg_catalog.pg_relation_size(c.oid) OPERATOR(pg_catalog.=) 0 \
      ORDER BY c.relname LIMIT 1",
    &[BuiltinOid::TEXTOID, BuiltinOid::TIMESTAMPTZOID],
);

static FOUNDLINGS: Plan = Plan::new(
    "SELECT c.relname::pg_catalog.text \
       FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid \
      WHERE i.inhparent OPERATOR(pg_catalog.=) $1::pg_catalog.regclass \
        AND NOT EXISTS (SELECT 1 FROM pushy_internal.rotation r WHERE r.member OPERATOR(pg_catalog.=) c.relname) \
        AND pg_catalog.pg_relation_size(c.oid) OPERATOR(pg_catalog.>) 0",
    &[BuiltinOid::TEXTOID],
);

static ADOPT: Plan = Plan::new(
    "INSERT INTO pushy_internal.rotation (pool, member, removes_after) VALUES ($1, $2::pg_catalog.name, $3)",
    &[
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

static RELEASE: Plan = Plan::new(
    "DELETE FROM pushy_internal.rotation r WHERE r.member OPERATOR(pg_catalog.=) $1::pg_catalog.name",
    &[BuiltinOid::TEXTOID],
);

/// What came of the deletion of rows of some pages.
pub struct Deleted {
    /// The page to go on with, None behind the last.
    pub next: Option<i64>,
    /// Somebody held some of the rows: they are still there.
    pub passed_over: bool,
}

/// Deletes rows of some pages of a table, from page `from` on, of which `which` (SQL) holds, but for those that somebody holds.
/// As the extension's owner.
pub fn delete_pages(table: &str, from: i64, which: &str) -> Deleted {
    const PAGES: i64 = 64;
    let pages = size::bytes(table) / size::PAGE;
    let next = from + PAGES;
    let delete = format!(
        "WITH met AS MATERIALIZED ( \
                SELECT l.ctid AS place FROM ONLY pushy_internal.{table} l \
                 WHERE l.ctid OPERATOR(pg_catalog.>=) '({from},0)'::pg_catalog.tid \
                   AND l.ctid OPERATOR(pg_catalog.<) '({next},0)'::pg_catalog.tid AND {which}), \
              gone AS ( \
                DELETE FROM ONLY pushy_internal.{table} t WHERE t.ctid OPERATOR(pg_catalog.=) ANY (ARRAY( \
                   SELECT l.ctid FROM ONLY pushy_internal.{table} l \
                    WHERE l.ctid OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT met.place FROM met)) FOR UPDATE OF l SKIP LOCKED)) \
                RETURNING 1) \
         SELECT (SELECT pg_catalog.count(*) FROM gone) OPERATOR(pg_catalog.<) (SELECT pg_catalog.count(*) FROM met)"
    );
    Deleted {
        next: (next < pages).then_some(next),
        passed_over: spi::run_once(&delete, |found| found.row(0).bool(1)),
    }
}

impl Pool {
    /// A table for rows that are to be removed at `from` or later, and by `until`, open for writing; None
    /// when none is assigned. As the extension's owner.
    pub fn open(&self, from: Timestamp, until: Timestamp) -> Result<Option<Table>> {
        // Bounded: by the changes that others commit meanwhile.
        while let Some(generation) = generation() {
            let windows = self.cached(generation)?;
            let fitting = windows
                .iter()
                .find(|window| window.removes_after >= from && window.removes_after <= until);
            let Some(window) = fitting else { break };
            let table = heap::open(&window.member)?;
            // From here on the lock keeps the table from being emptied; before, somebody may have emptied it.
            if self::generation() == Some(generation) {
                return Ok(Some(table));
            }
        }
        Ok(None)
    }

    fn cached(&self, generation: u64) -> Result<Rc<[Window]>> {
        let cached = CACHE.with_borrow(|cache| {
            cache
                .get(self.parent)
                .filter(|cached| cached.generation == generation)
                .map(|cached| Rc::clone(&cached.windows))
        });
        if let Some(windows) = cached {
            return Ok(windows);
        }
        let windows: Rc<[Window]> = self.windows()?.into();
        let cached = Cached {
            generation,
            windows: Rc::clone(&windows),
        };
        CACHE.with_borrow_mut(|cache| cache.insert(self.parent, cached));
        Ok(windows)
    }

    /// The tables in use, the one that is emptied first before the others; as of now, whatever the
    /// transaction's snapshot. As the extension's owner, as are the next.
    pub fn windows(&self) -> Result<Vec<Window>> {
        self.read(false)
    }

    /// Tables that were emptied in place and have not been used since.
    pub fn free(&self) -> Result<Vec<Window>> {
        self.read(true)
    }

    fn read(&self, are_free: bool) -> Result<Vec<Window>> {
        let mut windows = Vec::new();
        let shape = (table::COLUMNS, &table::CHECKED);
        heap::read_now("rotation", shape, "rotation_pkey", &[], |row| {
            if row.text(table::POOL)? == self.parent && row.bool(table::IS_FREE) == are_free {
                windows.push(Window {
                    member: row.name(table::MEMBER),
                    removes_after: row.timestamp(table::REMOVES_AFTER),
                });
            }
            Ok(true)
        })?;
        windows.sort_by_key(|window| window.removes_after);
        Ok(windows)
    }

    /// Takes a table into use; false when none is free. By one process at a time.
    pub fn assign(&self, removes_after: Timestamp) -> Result<bool> {
        let windows = self.windows()?;
        if windows
            .iter()
            .any(|existing| existing.removes_after == removes_after)
        {
            return Ok(true);
        }
        pending::rotated();
        let given = params![self.parent, removes_after];
        Ok(spi::run(&ASSIGN_FREE, given) > 0 || spi::run(&ASSIGN, given) > 0)
    }

    /// Empties a table and frees it; false when somebody uses it, because nobody is made to wait. Older snapshots lose
    /// the rows, too: TRUNCATE does not keep them.
    pub fn empty(&self, window: &Window) -> Result<bool> {
        if !table_lock::try_lock(&window.member, Lock::AccessExclusive) {
            return Ok(false);
        }
        spi::run_once(
            &format!("TRUNCATE ONLY pushy_internal.{}", window.member),
            |_| (),
        );
        spi::run(&RELEASE, params![window.member.as_str()]);
        pending::rotated();
        Ok(true)
    }

    /// Deletes the rows of some pages of a table whose window is over, from page `from` on, but for those that somebody
    /// holds; answers the page to go on with, None behind the last.
    pub fn delete_some(&self, window: &Window, from: i64) -> Result<Option<i64>> {
        Ok(delete_pages(&window.member, from, "true").next)
    }

    /// Frees a table whose rows were deleted; false when some are left, which somebody held.
    pub fn set_free(&self, window: &Window) -> Result<bool> {
        let any_row = format!(
            "SELECT 1 FROM ONLY pushy_internal.{} LIMIT 1",
            window.member
        );
        let is_empty = spi::run_once(&any_row, |table| table.is_empty());
        if is_empty {
            spi::run(&SET_FREE, params![window.member.as_str()]);
            pending::rotated();
        }
        Ok(is_empty)
    }

    /// Tables that are not in use and have rows: a restore has brought them.
    pub fn tables_of_restore(&self) -> Result<Vec<String>> {
        spi::connect(|spi| {
            let table = spi.run(&FOUNDLINGS, params![self.parent]);
            table.rows().map(|row| row.text(1)).collect::<Result<_>>()
        })
    }

    /// Takes over a table that a restore has filled; reads it once for the newest row.
    pub fn adopt(&self, member: &str) -> Result<()> {
        // A table that somebody writes to is still being restored.
        if !table_lock::try_lock(member, Lock::Share) {
            return Ok(());
        }
        let newest = format!(
            "SELECT pg_catalog.max(t.{}) FROM ONLY pushy_internal.{member} t",
            self.kept_until
        );
        let newest = spi::run_once(&newest, |table| table.row(0).opt_i64(1));
        let removes_after = newest.map_or_else(clock::now, Timestamp);
        spi::run(&ADOPT, params![self.parent, member, removes_after]);
        pending::due(removes_after.0);
        pending::rotated();
        Ok(())
    }
}
