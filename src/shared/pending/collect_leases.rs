//! Leases that a transaction adds and ends, collected for its end.

use super::{with, LeaseChange, Pending, PENDING};
use crate::pg::transaction;
use crate::shared::queue_slot::QueueKey;

impl Pending {
    fn change_of_leases(&mut self, key: QueueKey) -> &mut LeaseChange {
        let level = transaction::nest_level();
        let is_it = |change: &LeaseChange| change.level == level && change.key == key;
        let at = self.leases.iter().position(is_it).unwrap_or_else(|| {
            self.leases.push(LeaseChange {
                level,
                key,
                added: 0,
                ended: 0,
                said_at: 0,
                round: None,
            });
            self.leases.len() - 1
        });
        &mut self.leases[at]
    }
}

/// A lease ends at `time` (µs), once this transaction has committed.
pub fn lease_ends(time: i64) {
    with(|pending| pending.lease_ends = pending.lease_ends.min(time));
}

/// Jobs are leased from `now` until `time` (µs), so many. The caller holds the lock of the queue's leases.
pub fn leased(key: QueueKey, jobs: u32, now: i64, time: i64) {
    lease_said(key, now, time);
    with(|pending| pending.change_of_leases(key).added += jobs);
}

/// A lease lasts from `now` until `time` (µs), once this transaction has committed, which cannot be prepared.
pub fn lease_said(key: QueueKey, now: i64, time: i64) {
    lease_ends(time);
    with(|pending| {
        let said_at = &mut pending.change_of_leases(key).said_at;
        *said_at = now.max(*said_at);
    });
}

/// So many leases of workers outside end.
pub fn leases_ended(key: QueueKey, leases: u32) {
    if leases > 0 {
        with(|pending| pending.change_of_leases(key).ended += leases);
    }
}

/// How many leases of a queue this transaction adds, and ends, so far.
pub fn leases_of(key: QueueKey) -> (u32, u32) {
    PENDING.with_borrow(|pending| {
        let changes = pending.leases.iter().filter(|change| change.key == key);
        changes.fold((0, 0), |(added, ended), change| {
            (added + change.added, ended + change.ended)
        })
    })
}
