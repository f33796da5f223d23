//! Snapshots that a statement is to run under, kept to be asked afterwards.

use pgrx::pg_sys;
use pushy_core::log::seen::Seen;

/// A registered snapshot; let go when dropped, or by the transaction's abort.
pub struct Snapshot(pg_sys::Snapshot);

/// A new snapshot of the current transaction.
pub fn take() -> Snapshot {
    // SAFETY: inside a transaction.
    Snapshot(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()) })
}

/// A snapshot as of this moment, whatever the transaction's own is.
pub fn take_latest() -> Snapshot {
    // SAFETY: inside a transaction.
    Snapshot(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot()) })
}

/// The one under which the calling statement runs.
pub fn of_statement() -> Snapshot {
    // SAFETY: a function is called under a snapshot.
    Snapshot(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot()) })
}

impl Snapshot {
    /// What it says of top-level transactions.
    pub fn seen(&self) -> Seen {
        // SAFETY: a registered MVCC snapshot of a server that is not in recovery: xip has xcnt numbers.
        let (xmin, xmax, running) = unsafe {
            let raw = &*self.0;
            let running: &[pg_sys::TransactionId] = if raw.xcnt == 0 {
                &[]
            } else {
                std::slice::from_raw_parts(raw.xip, raw.xcnt as usize)
            };
            (raw.xmin, raw.xmax, running)
        };
        let next = crate::pg::transaction::next_xid();
        // No number in a snapshot is of the future, nor half the numbers behind.
        let widen = |xid: pg_sys::TransactionId| {
            let wide = (next & !0xffff_ffff) | u64::from(xid.into_inner());
            if wide > next {
                wide.saturating_sub(1 << 32)
            } else {
                wide
            }
        };
        Seen::new(
            widen(xmin),
            widen(xmax),
            running.iter().map(|xid| widen(*xid)).collect(),
        )
    }

    /// Runs `work` with this one active.
    pub fn with_active<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: registered; after an ERROR the abort pops it.
        unsafe {
            pg_sys::PushActiveSnapshot(self.0);
            let result = work();
            pg_sys::PopActiveSnapshot();
            result
        }
    }

    pub fn raw(&self) -> pg_sys::Snapshot {
        self.0
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        // After an ERROR the resource owner lets go of it.
        if !std::thread::panicking() {
            // SAFETY: registered by take(), in the same resource owner.
            unsafe { pg_sys::UnregisterSnapshot(self.0) }
        }
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
