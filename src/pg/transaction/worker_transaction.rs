//! Transactions of workers.

use std::cell::{Cell, RefCell};

use pgrx::pg_sys;

use super::is_in_recovery;
use crate::errors::{Error, Result};
use crate::pg::catch::caught;
use crate::pg::per_process::PerProcess;
use crate::pg::timeout::{self, LockPatience};
use crate::pg::{clock, ereport, interrupts};

extern "C-unwind" {
    // Without the guards of the bindings: they raise nothing.
    fn GetXLogInsertRecPtr() -> pg_sys::XLogRecPtr;
}

/// A worker's own statement waits so long for a lock, then its transaction is rolled back: a transaction of a user
/// that holds a lock holds nobody's bookkeeping. Longer than Pushy's processes hold any against each other.
const BOOKKEEPING_LOCK_MS: i32 = 100;

/// Runs `work` in a transaction of its own: committed when it answers Ok, else rolled back. For
/// workers, outside any transaction. Returns to the memory context it was called in.
///
/// Waits for no lock for long: an Error that `is_busy` says that somebody holds one. Nothing was done then, and the
/// caller comes back later, by an event or a timer, and goes on with other things meanwhile.
pub fn run<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    run_within(BOOKKEEPING_LOCK_MS, work)
}

/// The same, None where somebody holds a lock.
pub fn run_unless_busy<T>(work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    match run(work) {
        Err(failure) if failure.is_busy() => Ok(None),
        done => done.map(Some),
    }
}

/// Runs `work` for each of some things: for all in one transaction, or, when somebody holds a lock, in one for each, so
/// that nothing but what is held is passed over: None.
pub fn run_each<T, R>(
    things: &[T],
    mut work: impl FnMut(&T) -> Result<R>,
) -> Result<Vec<Option<R>>> {
    let all = run_unless_busy(|| things.iter().map(&mut work).collect::<Result<Vec<R>>>())?;
    match all {
        Some(done) => Ok(done.into_iter().map(Some).collect()),
        None if things.len() == 1 => Ok(vec![None]),
        None => things
            .iter()
            .map(|thing| run_unless_busy(|| work(thing)))
            .collect(),
    }
}

/// As `run`, with another bound on waits for locks, its COMMIT's included: NOTIFY's, which all who notify take in turn.
pub fn run_within<T>(lock_ms: i32, work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: the context outlives the call; workers call this at top level only.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    let outcome = caught(|| {
        let _bookkeeping = begin_within(lock_ms);
        let answer = work();
        if answer.is_ok() {
            commit();
        }
        answer
    });
    let outcome = match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => {
            abort();
            Err(error)
        }
        Err(failure) => {
            abort();
            Err(failure)
        }
    };
    // SAFETY: see above.
    unsafe { pg_sys::MemoryContextSwitchTo(context) };
    outcome
}

/// Begins a transaction of a worker, with a snapshot active until its end: SPI wants one below the
/// snapshots that it takes for its statements. While what it answers lives, waits for locks are bounded: user code
/// runs under a bound of its own (`timeout::bound_lock_waits`).
pub fn begin() -> LockPatience {
    begin_within(BOOKKEEPING_LOCK_MS)
}

fn begin_within(lock_ms: i32) -> LockPatience {
    let patience = timeout::bound_lock_waits(lock_ms);
    clock::start_statement();
    // SAFETY: outside a transaction; commit() pops the snapshot, as an abort does.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    patience
}

/// The commit of this transaction will be flushed before anybody sees it, whatever synchronous_commit says.
pub fn commit_durably() {
    // SAFETY: sets a flag of the current transaction.
    unsafe { pg_sys::ForceSyncCommit() }
}

/// Waits until every commit so far is on disk, whatever its synchronous_commit: what is answered of it stays true after a
/// crash.
pub fn flush_commits() {
    const PAGE: u64 = pg_sys::XLOG_BLCKSZ as u64;
    const HEADER: u64 = size_of::<pg_sys::XLogPageHeaderData>().next_multiple_of(8) as u64;
    const FIRST_HEADER: u64 =
        size_of::<pg_sys::XLogLongPageHeaderData>().next_multiple_of(8) as u64;
    // SAFETY: reads shared memory; a flush raises an ERROR or waits for the disk.
    unsafe {
        if is_in_recovery() {
            return;
        }
        let next = GetXLogInsertRecPtr();
        // The next record begins behind the header of its page; where nothing else is on that page, the last one ends
        // before it (XLogBytePosToEndRecPtr in xlog.c), and no more can be flushed.
        let header = if next % pg_sys::wal_segment_size as u64 == FIRST_HEADER {
            FIRST_HEADER
        } else if next % PAGE == HEADER {
            HEADER
        } else {
            0
        };
        pg_sys::XLogFlush(next - header);
    }
}

pub fn commit() {
    // SAFETY: inside a transaction of begin(), whose snapshot is the only one left.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
    if HAS_UNLOGGED.replace(false) {
        UNLOGGED.take().iter().for_each(ereport::log);
    }
}

static HAS_UNLOGGED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));
static UNLOGGED: PerProcess<RefCell<Vec<Error>>> = PerProcess::new(RefCell::new(Vec::new()));

/// A line for the server's log about what this transaction of a worker does: written when it has committed, because a line about
/// what was rolled back would not be true.
pub fn log_at_commit(line: Error) {
    HAS_UNLOGGED.set(true);
    UNLOGGED.with_borrow_mut(|lines| lines.push(line));
}

/// Runs what is deferred to the commit of this transaction: constraints and constraint triggers. Raises
/// their errors. At the outer level, between two statements.
pub fn run_deferred() {
    // SAFETY: as CommitTransaction does it, which finds nothing left then.
    unsafe { pg_sys::AfterTriggerFireDeferred() }
}

/// Rolls back whatever is open, after a caught error or without one. Interrupts are held off as the
/// server's main loop does.
pub fn abort() {
    if HAS_UNLOGGED.replace(false) {
        UNLOGGED.take();
    }
    let _held = interrupts::hold_cancels();
    // SAFETY: AbortCurrentTransaction is fit in any state; the error was flushed when caught.
    unsafe {
        pg_sys::AbortCurrentTransaction();
    }
}
