//! SPI with plans that are prepared once a backend, in a few safe shapes.
//!
//! [`connect`] is for statements of Pushy's own, which may run with the owner's rights: whatever they name is looked up in
//! `pg_catalog` only, so that none can be written such that it finds what a user has planted. What a user has written is in
//! conditions of triggers only: [`crate::pg::catalog_trigger::create`].

pub use super::rows::{Row, Rows};
pub use crate::pg::value::tid::Tid;
use std::ffi::CString;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;

use crate::pg::function::{Answer, IntoAnswer};
use crate::pg::{search_path, text};

/// A statement with the types of its parameters, planned at first use and kept by the backend.
pub struct Plan {
    sql: &'static str,
    types: &'static [pg_sys::BuiltinOid],
    /// CURSOR_OPT_* of the server.
    options: u32,
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

impl Plan {
    pub const fn new(sql: &'static str, types: &'static [pg_sys::BuiltinOid]) -> Self {
        assert!(types.len() <= MOST_PARAMS);
        Self {
            sql,
            types,
            options: 0,
            plan: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// Planned once for all values: for what is asked for each row of many, where planning costs more than the answer. The server by itself
    /// plans a statement over a table with many children anew each time.
    pub const fn for_any_values(sql: &'static str, types: &'static [pg_sys::BuiltinOid]) -> Self {
        let mut plan = Self::new(sql, types);
        plan.options = pg_sys::CURSOR_OPT_GENERIC_PLAN;
        plan
    }

    /// # Safety
    /// Inside SPI_connect.
    unsafe fn prepared(&self) -> pg_sys::SPIPlanPtr {
        let kept = self.plan.load(Ordering::Relaxed);
        if !kept.is_null() {
            return kept;
        }
        let sql = CString::new(self.sql).expect("no NUL in a statement");
        let mut types: Vec<pg_sys::Oid> = self.types.iter().map(|oid| (*oid).into()).collect();
        let (count, options) = (types.len() as i32, self.options as i32);
        let plan = pg_sys::SPI_prepare_cursor(sql.as_ptr(), count, types.as_mut_ptr(), options);
        assert!(!plan.is_null(), "SPI_prepare failed: {}", self.sql);
        pg_sys::SPI_keepplan(plan);
        self.plan.store(plan, Ordering::Relaxed);
        plan
    }
}

/// One parameter of a statement.
pub type Param = Answer;

/// A connection to SPI for the length of a closure; rows live as long.
pub struct Spi(());

/// The setting jit as the session has it, put back when this is dropped, which an ERROR does that unwinds.
struct Uncompiled(bool);

impl Uncompiled {
    /// No statement of Pushy's own takes as long as its compilation, however many rows of others the planner reckons with.
    fn begin() -> Self {
        // SAFETY: the variable of the setting; the planner reads it.
        unsafe {
            let was_on = pg_sys::jit_enabled;
            pg_sys::jit_enabled = false;
            Self(was_on)
        }
    }
}

impl Drop for Uncompiled {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::jit_enabled = self.0 }
    }
}

/// Runs `work` connected to SPI, with the search path pinned and nothing compiled. An ERROR inside unwinds; the transaction's abort then cleans
/// up.
pub fn connect<T>(work: impl FnOnce(&Spi) -> T) -> T {
    let _pinned = search_path::pin();
    let _uncompiled = Uncompiled::begin();
    // SAFETY: SPI_connect and SPI_finish are paired; on unwinding AtEOXact_SPI or
    // AtEOSubXact_SPI does what SPI_finish would.
    unsafe {
        assert_eq!(pg_sys::SPI_connect(), pg_sys::SPI_OK_CONNECT as i32);
        let result = work(&Spi(()));
        assert_eq!(pg_sys::SPI_finish(), pg_sys::SPI_OK_FINISH as i32);
        result
    }
}

/// The most parameters a statement has.
const MOST_PARAMS: usize = 32;

/// Parameters as SPI wants them: values, and 'n' for each NULL.
fn bind(
    params: &[Param],
) -> (
    [pg_sys::Datum; MOST_PARAMS],
    [std::ffi::c_char; MOST_PARAMS],
) {
    let mut values = [pg_sys::Datum::from(0usize); MOST_PARAMS];
    let mut nulls = [b' ' as std::ffi::c_char; MOST_PARAMS];
    for (index, param) in params.iter().enumerate() {
        match param {
            Answer::Null => nulls[index] = b'n' as _,
            Answer::Datum(datum) => values[index] = *datum,
        }
    }
    (values, nulls)
}

impl Spi {
    /// What the last statement answered.
    pub(in crate::pg) fn table(&self) -> Rows<'_> {
        // SAFETY: connected (self exists): both are this connection's.
        unsafe {
            Rows {
                table: pg_sys::SPI_tuptable,
                processed: pg_sys::SPI_processed as usize,
                _spi: std::marker::PhantomData,
            }
        }
    }

    /// Runs a statement under the latest snapshot, whatever the isolation level of the caller's transaction: in
    /// REPEATABLE READ the transaction's own snapshot may be from before a queue or a watch was declared, granted or
    /// dropped, and what is read here is believed, and remembered for later transactions.
    pub fn run(&self, plan: &Plan, params: &[Param]) -> Rows<'_> {
        debug_assert_eq!(plan.types.len(), params.len(), "{}", plan.sql);
        let (mut values, nulls) = bind(params);
        // SAFETY: connected (self exists); as many values as the plan has parameters. SPI copies the snapshot, which is
        // the server's own and good until the next is taken.
        let code = unsafe {
            let prepared = plan.prepared();
            pg_sys::SPI_execute_snapshot(
                prepared,
                values.as_mut_ptr(),
                nulls.as_ptr(),
                pg_sys::GetLatestSnapshot(),
                std::ptr::null_mut(),
                false,
                true,
                0,
            )
        };
        assert!(
            code > 0,
            "SPI_execute_snapshot answered {code}: {}",
            plan.sql
        );
        self.table()
    }

    /// Runs a query under the active snapshot, not a new one: for rows that must agree with those of the caller's
    /// statement, and inside `transaction::with_latest_snapshot`. Never for a definition or a privilege.
    pub fn run_in_active_snapshot(&self, plan: &Plan, params: &[Param]) -> Rows<'_> {
        debug_assert_eq!(plan.types.len(), params.len(), "{}", plan.sql);
        let (mut values, nulls) = bind(params);
        // SAFETY: connected (self exists); as many values as the plan has parameters.
        let code = unsafe {
            pg_sys::SPI_execute_plan(
                plan.prepared(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
                true,
                0,
            )
        };
        assert!(code > 0, "SPI_execute_plan answered {code}: {}", plan.sql);
        self.table()
    }
}

/// Runs a command that is not kept as a plan: for what happens seldom.
pub fn command(sql: &str) {
    let sql = CString::new(text::encode(sql).as_ref()).expect("no NUL in a command");
    connect(|_| {
        // SAFETY: connected; the text outlives the call.
        let code = unsafe { pg_sys::SPI_execute(sql.as_ptr(), false, 0) };
        assert!(code > 0, "SPI_execute answered {code}");
    });
}

/// Runs one statement and answers how many rows it touched.
pub fn run(plan: &Plan, params: &[Param]) -> u64 {
    connect(|spi| spi.run(plan, params).len() as u64)
}

/// Runs one statement that has no plan to keep: a command, or a query whose table is known now only.
pub fn run_once<T>(sql: &str, read: impl FnOnce(&Rows<'_>) -> T) -> T {
    let sql = CString::new(sql).expect("no NUL in a statement");
    connect(|_| {
        // SAFETY: connected; the statement is a whole one.
        let table = unsafe {
            let code = pg_sys::SPI_execute(sql.as_ptr(), false, 0);
            assert!(code > 0, "SPI_execute answered {code}: {sql:?}");
            Rows {
                table: pg_sys::SPI_tuptable,
                processed: pg_sys::SPI_processed as usize,
                _spi: std::marker::PhantomData,
            }
        };
        read(&table)
    })
}

/// Parameters from values of different types.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::pg::function::IntoAnswer::into_answer($value)),*]
    };
}

impl IntoAnswer for pg_sys::Datum {
    fn into_answer(self) -> Answer {
        Answer::Datum(self)
    }
}
