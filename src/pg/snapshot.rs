//! Snapshots that a statement is to run under, kept to be asked afterwards.

use pgrx::pg_sys;

/// A registered snapshot; let go when dropped, or by the transaction's abort.
pub struct Snapshot(pg_sys::Snapshot);

/// A new snapshot of the current transaction.
pub fn take() -> Snapshot {
    // SAFETY: inside a transaction.
    Snapshot(unsafe { pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot()) })
}

impl Snapshot {
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
