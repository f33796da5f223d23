//! Transactions of workers, and what there is to know about any.

use pgrx::pg_sys;

use super::failure::{self, Failure};
use super::interrupts;
use super::timeout::{self, LockPatience};
use crate::errors::{Error, Result, SqlState};

extern "C-unwind" {
    // Without the guards of the bindings: called for each row or commit, they raise nothing.
    fn GetCurrentTransactionIdIfAny() -> pg_sys::TransactionId;
    fn GetTopFullTransactionIdIfAny() -> pg_sys::FullTransactionId;
    fn GetXLogInsertRecPtr() -> pg_sys::XLogRecPtr;
    fn RecoveryInProgress() -> bool;
}

/// A worker's own statement waits so long for a lock, then its transaction is rolled back: a transaction of a user
/// that holds a lock holds nobody's bookkeeping. Longer than Pushy's processes hold any against each other.
const BOOKKEEPING_LOCK_MS: i32 = 100;

/// Runs `work` in a transaction of its own: committed when it answers Ok, else rolled back. For
/// workers, outside any transaction. Returns to the memory context it was called in.
///
/// Waits for no lock for long: a Failure that `is_busy` says that somebody holds one. Nothing was done then, and the
/// caller comes back later, by an event or a timer, and goes on with other things meanwhile.
pub fn run<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    run_within(BOOKKEEPING_LOCK_MS, work)
}

/// The same, None where somebody holds a lock.
pub fn run_unless_busy<T>(
    work: impl FnOnce() -> Result<T>,
) -> std::result::Result<Option<T>, Failure> {
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
) -> std::result::Result<Vec<Option<R>>, Failure> {
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
pub fn run_within<T>(
    lock_ms: i32,
    work: impl FnOnce() -> Result<T>,
) -> std::result::Result<T, Failure> {
    // SAFETY: the context outlives the call; workers call this at top level only.
    let context = unsafe { pg_sys::CurrentMemoryContext };
    let outcome = failure::catch(|| {
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
            Err(Failure::from(error))
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
    super::clock::start_statement();
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
        if RecoveryInProgress() {
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
    let _held = interrupts::hold_cancels();
    // SAFETY: AbortCurrentTransaction is fit in any state; the error was flushed when caught.
    unsafe {
        pg_sys::AbortCurrentTransaction();
    }
}

/// Runs `work` with an active snapshot.
pub fn with_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: inside a transaction; after an ERROR the abort pops the snapshot.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// Runs `work` with the newest snapshot active, also where the transaction's own is older.
pub fn with_latest_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: as above.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        result
    }
}

/// Commits the transaction of a CALL at top level and begins the next, holding no snapshot.
pub fn commit_in_procedure() -> Result<()> {
    // SAFETY: connected without atomicity; SPI_commit raises 2D000 where that is not so.
    unsafe {
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        pg_sys::SPI_commit();
        pg_sys::SPI_finish();
    }
    Ok(())
}

/// Refuses a procedure that ends transactions where it cannot.
pub fn require_nonatomic(nonatomic: bool, procedure: &str) -> Result<()> {
    if nonatomic {
        return Ok(());
    }
    Err(Error::new(
        SqlState::INVALID_TRANSACTION_TERMINATION,
        format!("procedure {procedure} cannot run inside a transaction block"),
    )
    .hint("CALL it on its own, outside BEGIN … COMMIT and outside a function: it must hold no snapshot while it waits."))
}

/// Refuses a command in a read-only transaction and on a standby (25006), by its own name.
pub fn require_writable(command: &std::ffi::CStr) {
    // SAFETY: raises, or does nothing.
    unsafe { pg_sys::PreventCommandIfReadOnly(command.as_ptr()) }
}

/// Whether this xid is the current transaction or one of its committed children.
pub fn is_own(xid: u32) -> bool {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::TransactionIdIsCurrentTransactionId(pg_sys::TransactionId::from(xid)) }
}

/// The number of the current top-level transaction, with its epoch, and that of the current savepoint; both
/// are given out if need be.
pub fn my_xids() -> (u64, u32) {
    #[cold]
    fn assign() -> u32 {
        // SAFETY: inside a transaction, not in recovery.
        unsafe { pg_sys::GetCurrentTransactionId().into_inner() }
    }
    // SAFETY: reads a variable.
    let own = match unsafe { GetCurrentTransactionIdIfAny().into_inner() } {
        0 => assign(),
        known => known,
    };
    (xid(), own)
}

/// Whether a transaction, or savepoint, that is over has committed.
pub fn has_committed(xid: u32) -> bool {
    // SAFETY: looks into the commit log, which reaches back to the oldest number in any table.
    unsafe { pg_sys::TransactionIdDidCommit(pg_sys::TransactionId::from(xid)) }
}

/// Where the WAL is written: never the same before and after somebody's commit.
pub fn wal_position() -> i64 {
    // SAFETY: reads shared memory, under a spinlock of the server; raises nothing.
    unsafe { GetXLogInsertRecPtr() as i64 }
}

/// Whether the transaction may not write: it said so, or this is a standby.
pub fn is_read_only() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() }
}

/// Whether this is a standby.
pub fn is_in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { RecoveryInProgress() }
}

/// Refuses what is collected for the commit in a parallel worker, whose transaction ends without one. `command`: for the message.
pub fn require_leader(command: &str) -> Result<()> {
    // SAFETY: reads a variable of this process.
    if unsafe { pg_sys::ParallelWorkerNumber } < 0 {
        return Ok(());
    }
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{command} cannot be called in a parallel worker"),
    )
    .hint("Mark the function that calls it PARALLEL UNSAFE or PARALLEL RESTRICTED."))
}

/// Refuses a command on a standby, by its own name.
pub fn require_primary(command: &std::ffi::CStr) {
    #[cold]
    fn refuse(command: &std::ffi::CStr) {
        // SAFETY: raises.
        unsafe { pg_sys::PreventCommandDuringRecovery(command.as_ptr()) }
    }
    // SAFETY: reads shared memory.
    if unsafe { RecoveryInProgress() } {
        refuse(command);
    }
}

/// Waits until a transaction has ended altogether: its locks are gone, its invalidations sent.
pub fn await_end(xid: u32) {
    let xid = pg_sys::TransactionId::from(xid);
    // SAFETY: waits for the lock that a transaction holds on its own number; a frozen or old one is over.
    unsafe {
        if pg_sys::TransactionIdIsNormal(xid) {
            pg_sys::XactLockTableWait(
                xid,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                pg_sys::XLTW_Oper::XLTW_None,
            );
        }
    }
}

/// How deep in savepoints the current code runs; 1 is the transaction itself.
pub fn nest_level() -> i32 {
    extern "C-unwind" {
        fn GetCurrentTransactionNestLevel() -> i32;
    }
    // SAFETY: reads a variable of this process and raises nothing: no guard.
    unsafe { GetCurrentTransactionNestLevel() }
}

/// Subtransaction ids of the current transaction that others must know of, those that handlers made
/// for exception blocks included; u32::MAX when they no longer fit the server's cache.
pub fn subtransaction_ids() -> u32 {
    // SAFETY: reads what only this process writes.
    unsafe {
        let status = (*pg_sys::MyProc).subxidStatus;
        if status.overflowed {
            u32::MAX
        } else {
            u32::from(status.count)
        }
    }
}

/// The 64-bit id of this transaction, given to it if it has none yet.
pub fn xid() -> u64 {
    #[cold]
    fn assign() -> u64 {
        // SAFETY: inside a transaction that may write.
        unsafe { pg_sys::GetTopFullTransactionId().value }
    }
    // SAFETY: reads a variable.
    match unsafe { GetTopFullTransactionIdIfAny().value } {
        0 => assign(),
        known => known,
    }
}

/// The next transaction id to be given out: unchanged means nobody has written since.
pub fn next_xid() -> u64 {
    // SAFETY: takes XidGenLock shared for a moment.
    unsafe { pg_sys::ReadNextFullTransactionId().value }
}

/// How many transactions may be prepared at a time: max_prepared_transactions, the same for the life of the server.
pub fn most_prepared() -> usize {
    extern "C" {
        static max_prepared_xacts: std::ffi::c_int;
    }
    // SAFETY: reads a setting that changes at the start of the server only.
    unsafe { max_prepared_xacts }.max(0) as usize
}
