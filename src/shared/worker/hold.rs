//! An executor's hold of a procedure's job, as all can see it.

use std::sync::atomic::Ordering;

use super::executor::ExecutorSlot;
use crate::pg::database;
use crate::pg::value::Uuid;
use crate::shared::Shared;

impl ExecutorSlot {
    /// Before the lease with this token is committed.
    pub fn set_hold(&self, token: Uuid) {
        self.hold.store(hold_of(token), Ordering::SeqCst);
    }

    pub fn clear_hold(&self) {
        self.hold.store(0, Ordering::SeqCst);
    }
}

/// A token of which all bits are random, as one word that is not 0.
fn hold_of(token: Uuid) -> u64 {
    let Some((half, _)) = token.0.split_first_chunk::<8>() else {
        return 1;
    };
    u64::from_le_bytes(*half) | 1
}

impl Shared {
    /// Whether an executor holds a job of this database by the lease with this token. A copy of the database in the same server has the
    /// same tokens.
    pub fn shows_hold(&self, token: Uuid) -> bool {
        let hold = hold_of(token);
        let mut executors = self.executors.iter();
        let here = database::current();
        executors.any(|executor| {
            executor.hold.load(Ordering::SeqCst) == hold
                && executor.database.load(Ordering::SeqCst) == here
        })
    }
}
