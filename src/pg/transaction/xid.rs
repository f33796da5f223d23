//! Numbers of transactions, and what they say.

use pgrx::pg_sys;

extern "C-unwind" {
    // Without the guards of the bindings: called for each row or commit, they raise nothing.
    fn GetCurrentTransactionIdIfAny() -> pg_sys::TransactionId;
    fn GetTopFullTransactionIdIfAny() -> pg_sys::FullTransactionId;
    fn GetXLogInsertRecPtr() -> pg_sys::XLogRecPtr;
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
        xid => xid,
    };
    (xid(), own)
}

/// A savepoint of the current transaction, or that itself, where there is none; and by which number others know the transaction, if it
/// has one. A statement may go through several transactions.
#[derive(Clone, Copy)]
pub struct Savepoint(pg_sys::SubTransactionId, u32);

impl Savepoint {
    pub fn current() -> Self {
        // SAFETY: inside a transaction; reads a variable.
        Self(
            unsafe { pg_sys::GetCurrentSubTransactionId() },
            xid_if_any(),
        )
    }

    /// It was neither released nor rolled back.
    pub fn is_open(self) -> bool {
        // SAFETY: inside a transaction; walks the savepoints that are open.
        self.1 == xid_if_any() && unsafe { pg_sys::SubTransactionIsActive(self.0) }
    }
}

/// Whether a transaction, or savepoint, that is over has committed.
pub fn has_committed(xid: u32) -> bool {
    // SAFETY: looks into the commit log, which reaches back to the oldest number in any table.
    unsafe { pg_sys::TransactionIdDidCommit(pg_sys::TransactionId::from(xid)) }
}

/// Whether the server follows what this transaction reads and writes, to refuse what no serial order of transactions explains.
pub fn is_serializable() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Where the WAL is written: never the same before and after somebody's commit.
pub fn wal_position() -> i64 {
    // SAFETY: reads shared memory, under a spinlock of the server; raises nothing.
    unsafe { GetXLogInsertRecPtr() as i64 }
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
        xid => xid,
    }
}

/// The number of this transaction, without its epoch; 0: it has none.
pub fn xid_if_any() -> u32 {
    // SAFETY: reads a variable.
    unsafe { GetTopFullTransactionIdIfAny().value as u32 }
}

/// Whether a transaction is open or prepared. What it has committed can be seen once it is not.
pub fn is_running(xid: u32) -> bool {
    // SAFETY: looks at the processes' and the prepared transactions' numbers, under a lock of the server's that it takes and releases.
    unsafe { pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from(xid)) }
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
