//! The clock was set back: what was to be in a moment is far away, and what has just begun has not begun yet. Every time in
//! shared memory is compared with the clock, so every one is moved here, but for those that come from tables, where
//! people said them. (`pg_test/house/test_lint_clock.py` knows all of them.)

use std::sync::atomic::{AtomicI64, Ordering};

use super::database::{DatabaseSlot, NEVER};
use super::database_worker::DatabaseWorker;
use super::executor::ExecutorSlot;
use super::queue_slot::QueueSlot;
use super::Shared;

/// Waits that end at a time end now; what began at one began now. 0, which is 'none', stays.
fn not_after(now: i64, times: &[&AtomicI64]) {
    for time in times {
        time.fetch_min(now, Ordering::SeqCst);
    }
}

impl Shared {
    /// Called by the launcher, which wakes then whoever may go on.
    pub fn set_back(&self, now: i64) {
        not_after(now, &[&self.no_capacity_until, &self.started_at]);
        for slot in self.queues().iter().filter(|slot| slot.key().is_some()) {
            slot.set_back(now);
        }
        for executor in &self.executors {
            executor.set_back(now);
        }
        for database_slot in self
            .databases
            .iter()
            .filter(|database_slot| database_slot.oid() != 0)
        {
            database_slot.set_back(now);
        }
    }
}

impl QueueSlot {
    fn set_back(&self, now: i64) {
        let until = [
            &self.suspended_until,
            &self.single_until,
            &self.start_retry_at,
            &self.signalled_at,
            &self.asked_at,
        ];
        not_after(now, &until);
    }
}

impl ExecutorSlot {
    fn set_back(&self, now: i64) {
        let since = [
            &self.started_at,
            &self.idle_since,
            &self.job_started_at,
            &self.batch_began,
            &self.asked_at,
        ];
        not_after(now, &since);
    }
}

impl DatabaseWorker {
    fn set_back(&self, now: i64) {
        let times = [
            &self.since,
            &self.starting_since,
            &self.retry_at,
            &self.asked_at,
        ];
        not_after(now, &times);
    }
}

impl DatabaseSlot {
    fn set_back(&self, now: i64) {
        let rests = [
            &self.queues_rest_until,
            &self.asked_sweeps_rest_until,
            &self.sweep_rests_until,
            &self.windows_taken_until,
            &self.orphans_rest_until,
            &self.purge_rests_until,
        ];
        not_after(now, &rests);
        self.look_at_all_leases();
        // When their workers wanted to come back, or had found in tables that they should.
        for due in [&self.due, &self.log.relay_due, &self.unpublished_due] {
            if due.load(Ordering::SeqCst) != NEVER {
                not_after(now, &[due]);
            }
        }
        for worker in &self.workers {
            worker.set_back(now);
            worker.wake();
        }
    }
}
