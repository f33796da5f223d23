//! SPI with plans that are prepared once a backend, in a few safe shapes.
//!
//! [`connect`] is for statements of Pushy's own, which may run with the owner's rights: whatever they name is looked up in
//! `pg_catalog` only, so that none can be written such that it finds what a user has planted. What a user has written is in
//! conditions of triggers only: [`crate::pg::catalog_trigger::create`].

use std::ffi::CString;
use std::sync::atomic::{AtomicPtr, Ordering};

use pgrx::pg_sys;

use crate::errors::Result;
use crate::pg::function::{Answer, IntoAnswer};
use crate::pg::value::Timestamp;
use crate::pg::varlena::Varlena;
use crate::pg::{search_path, text};

/// A statement with the types of its parameters, planned at first use and kept by the backend.
pub struct Plan {
    sql: &'static str,
    types: &'static [pg_sys::BuiltinOid],
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

impl Plan {
    pub const fn new(sql: &'static str, types: &'static [pg_sys::BuiltinOid]) -> Self {
        assert!(types.len() <= MOST_PARAMS);
        Self {
            sql,
            types,
            plan: AtomicPtr::new(std::ptr::null_mut()),
        }
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
        let plan = pg_sys::SPI_prepare(sql.as_ptr(), types.len() as i32, types.as_mut_ptr());
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

/// Runs `work` connected to SPI, with the search path pinned. An ERROR inside unwinds; the transaction's abort then cleans
/// up.
pub fn connect<T>(work: impl FnOnce(&Spi) -> T) -> T {
    let _pinned = search_path::pin();
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
const MOST_PARAMS: usize = 31;

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
    fn table(&self) -> Table<'_> {
        // SAFETY: connected (self exists): both are this connection's.
        unsafe {
            Table {
                table: pg_sys::SPI_tuptable,
                processed: pg_sys::SPI_processed as usize,
                _spi: std::marker::PhantomData,
            }
        }
    }

    /// Runs a statement under the latest snapshot, whatever the isolation level of the caller's transaction: in
    /// REPEATABLE READ the transaction's own snapshot may be from before a queue or a watch was declared, granted or
    /// dropped, and what is read here is believed, and remembered for later transactions.
    pub fn run(&self, plan: &Plan, params: &[Param]) -> Table<'_> {
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
    pub fn look(&self, plan: &Plan, params: &[Param]) -> Table<'_> {
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
pub fn run_once<T>(sql: &str, read: impl FnOnce(&Table<'_>) -> T) -> T {
    let sql = CString::new(sql).expect("no NUL in a statement");
    connect(|_| {
        // SAFETY: connected; the statement is a whole one.
        let table = unsafe {
            let code = pg_sys::SPI_execute(sql.as_ptr(), false, 0);
            assert!(code > 0, "SPI_execute answered {code}: {sql:?}");
            Table {
                table: pg_sys::SPI_tuptable,
                processed: pg_sys::SPI_processed as usize,
                _spi: std::marker::PhantomData,
            }
        };
        read(&table)
    })
}

/// What a statement answered.
pub struct Table<'spi> {
    table: *mut pg_sys::SPITupleTable,
    processed: usize,
    _spi: std::marker::PhantomData<&'spi Spi>,
}

impl<'spi> Table<'spi> {
    /// Rows answered, or touched by a statement without RETURNING.
    pub fn len(&self) -> usize {
        self.processed
    }

    pub fn is_empty(&self) -> bool {
        self.processed == 0
    }

    pub fn row(&self, index: usize) -> Row<'_> {
        assert!(!self.table.is_null() && index < self.processed);
        // SAFETY: vals has `processed` entries while SPI is connected.
        unsafe {
            let (tuple, desc) = (*(*self.table).vals.add(index), (*self.table).tupdesc);
            Row {
                source: Source::Tuple(tuple, desc),
                _table: std::marker::PhantomData,
            }
        }
    }

    pub fn first(&self) -> Option<Row<'_>> {
        (!self.is_empty()).then(|| self.row(0))
    }

    pub fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        (0..self.processed).map(|index| self.row(index))
    }
}

/// One row; columns count from 1, as in SPI.
#[derive(Clone, Copy)]
pub struct Row<'table> {
    source: Source,
    _table: std::marker::PhantomData<&'table ()>,
}

#[derive(Clone, Copy)]
enum Source {
    Tuple(pg_sys::HeapTuple, pg_sys::TupleDesc),
    /// A slot whose columns have all been read.
    Slot(*mut pg_sys::TupleTableSlot),
}

impl Row<'_> {
    /// A row of a table of ours, read without SPI, all its columns; valid until the slot has another.
    pub(in crate::pg) fn of_slot(slot: *mut pg_sys::TupleTableSlot) -> Self {
        Self {
            source: Source::Slot(slot),
            _table: std::marker::PhantomData,
        }
    }

    /// A row of a table of ours as a tuple on its page; valid while that is pinned.
    pub(in crate::pg) fn of_tuple(tuple: pg_sys::HeapTuple, desc: pg_sys::TupleDesc) -> Self {
        Self {
            source: Source::Tuple(tuple, desc),
            _table: std::marker::PhantomData,
        }
    }

    pub fn datum(&self, column: i32) -> Option<pg_sys::Datum> {
        let mut null = false;
        // SAFETY: tuple and descriptor belong together; a slot has as many values as it says.
        let datum = unsafe {
            match self.source {
                Source::Tuple(tuple, desc) => pg_sys::SPI_getbinval(tuple, desc, column, &mut null),
                Source::Slot(slot) => {
                    let at = column as usize - 1;
                    assert!(at < (*slot).tts_nvalid as usize);
                    null = *(*slot).tts_isnull.add(at);
                    *(*slot).tts_values.add(at)
                }
            }
        };
        (!null).then_some(datum)
    }

    /// A value as it is, for a row that is stored while SPI is connected.
    pub fn answer(&self, column: i32) -> Answer {
        self.datum(column).map_or(Answer::Null, Answer::Datum)
    }

    fn present(&self, column: i32) -> pg_sys::Datum {
        self.datum(column)
            .unwrap_or_else(|| panic!("column {column} is null"))
    }

    pub fn opt_i64(&self, column: i32) -> Option<i64> {
        self.datum(column).map(|datum| datum.value() as i64)
    }

    pub fn i64(&self, column: i32) -> i64 {
        self.present(column).value() as i64
    }

    pub fn opt_i32(&self, column: i32) -> Option<i32> {
        self.datum(column).map(|datum| datum.value() as i32)
    }

    pub fn i32(&self, column: i32) -> i32 {
        self.present(column).value() as i32
    }

    pub fn i16(&self, column: i32) -> i16 {
        self.present(column).value() as i16
    }

    pub fn bool(&self, column: i32) -> bool {
        self.present(column).value() & 0xff != 0
    }

    pub fn oid(&self, column: i32) -> pg_sys::Oid {
        pg_sys::Oid::from(self.present(column).value() as u32)
    }

    /// A "char".
    pub fn byte(&self, column: i32) -> u8 {
        self.present(column).value() as u8
    }

    pub fn timestamp(&self, column: i32) -> Timestamp {
        Timestamp(self.i64(column))
    }

    pub fn opt_text(&self, column: i32) -> Result<Option<String>> {
        // SAFETY: the statement selects text here.
        self.datum(column)
            .map(|datum| unsafe { text::from_datum(datum) })
            .transpose()
    }

    /// Text as the server stores it.
    pub fn opt_bytes(&self, column: i32) -> Option<Vec<u8>> {
        // SAFETY: the statement selects text here.
        self.datum(column)
            .map(|datum| unsafe { text::bytes_from_datum(datum) })
    }

    /// Bytes of a text or a jsonb, without reading it; 0 for NULL.
    pub fn length(&self, column: i32) -> usize {
        // SAFETY: the statement selects a type of variable length here.
        self.datum(column)
            .map_or(0, |datum| unsafe { Varlena::of(datum).length() })
    }

    pub fn text(&self, column: i32) -> Result<String> {
        // SAFETY: the statement selects text here.
        unsafe { text::from_datum(self.present(column)) }
    }

    /// A by-reference value of variable length (text, jsonb, composite), copied into `context` and
    /// detoasted, so that it outlives SPI and the row.
    pub fn varlena_in(&self, column: i32, context: pg_sys::MemoryContext) -> Option<pg_sys::Datum> {
        // SAFETY: the caller selects a varlena here; the copy is made in `context`, which is live.
        self.datum(column).map(|datum| unsafe {
            let old = pg_sys::MemoryContextSwitchTo(context);
            let copy = pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr());
            pg_sys::MemoryContextSwitchTo(old);
            pg_sys::Datum::from(copy)
        })
    }

    /// The same into the memory of the caller of SPI, for a function's answer.
    pub fn answer_varlena(&self, column: i32) -> Answer {
        match self.datum(column) {
            None => Answer::Null,
            // SAFETY: connected to SPI; SPI_palloc takes memory of the upper executor context.
            Some(datum) => unsafe {
                let flat = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
                let size = pgrx::varsize_any(flat);
                let copy = pg_sys::SPI_palloc(size);
                std::ptr::copy_nonoverlapping(flat.cast::<u8>(), copy.cast::<u8>(), size);
                Answer::Datum(pg_sys::Datum::from(copy))
            },
        }
    }
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

/// Where a row stands in its table (ctid).
#[derive(Clone, Copy, Debug)]
pub struct Tid(pg_sys::ItemPointerData);

impl Tid {
    pub(in crate::pg) fn new(tid: pg_sys::ItemPointerData) -> Self {
        Self(tid)
    }

    pub(in crate::pg) fn raw(self) -> pg_sys::ItemPointerData {
        self.0
    }
}

impl Row<'_> {
    pub fn tid(&self, column: i32) -> Tid {
        // SAFETY: the statement selects a ctid here.
        Tid(unsafe {
            *self
                .present(column)
                .cast_mut_ptr::<pg_sys::ItemPointerData>()
        })
    }
}
