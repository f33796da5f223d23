//! Room for workers: who makes it when pushy.max_executors or the server's worker slots are used up.

use std::sync::atomic::Ordering;

use super::{Group, Launching, SLICE_US};
use crate::errors::{Error, SqlState};
use crate::pg::ereport;
use crate::shared::database::NEVER;
use crate::shared::executor::{Executor, ExecutorState};

/// The postmaster frees the slot of a worker that has ended within this time.
const SLOT_RETURN_US: i64 = 50_000;

impl Launching {
    /// All executors, or all worker slots of the server, are taken and this group has none: one that is
    /// idle, or else the one that has been there longest, leaves when its batch ends.
    pub(super) fn make_room(&self, group: Group, now: i64) -> i64 {
        if self.is_one_leaving(group) {
            // Its exit wakes us.
            return now + SLICE_US;
        }
        if let Some(idle) = self.idle_elsewhere(group).next() {
            idle.ask_to_stop();
            return now + SLICE_US;
        }
        let oldest = self
            .executors_elsewhere(group)
            .filter(|executor| executor.state() == ExecutorState::Busy)
            .min_by_key(|executor| executor.started_at.load(Ordering::SeqCst));
        let Some(oldest) = oldest else {
            return now + SLICE_US;
        };
        let until = oldest.started_at.load(Ordering::SeqCst) + SLICE_US;
        if until > now {
            return until;
        }
        oldest.ask_to_stop();
        now + SLICE_US
    }

    /// All executors are taken, and this group could do with another: one that has been idle elsewhere for a
    /// while leaves. Not sooner: it would be missed there.
    pub(super) fn make_more_room(&self, group: Group, now: i64) -> i64 {
        if self.is_one_leaving(group) {
            return now + SLICE_US;
        }
        let idle_since = |executor: &&Executor| executor.idle_since.load(Ordering::SeqCst);
        let Some(longest) = self.idle_elsewhere(group).min_by_key(idle_since) else {
            return NEVER;
        };
        let until = idle_since(&longest) + SLICE_US;
        if until > now {
            let looked_for_at = &self.shared.room_looked_for_at;
            looked_for_at.store(until, Ordering::SeqCst);
            return until;
        }
        longest.ask_to_stop();
        now + SLICE_US
    }

    fn executors_elsewhere(&self, group: Group) -> impl Iterator<Item = &'static Executor> {
        self.shared.executors.iter().filter(move |executor| {
            executor.state() != ExecutorState::Free && !executor.serves(group.0, group.1)
        })
    }

    fn idle_elsewhere(&self, group: Group) -> impl Iterator<Item = &'static Executor> {
        self.executors_elsewhere(group)
            .filter(|executor| executor.state() == ExecutorState::Idle)
    }

    fn is_one_leaving(&self, group: Group) -> bool {
        self.executors_elsewhere(group)
            .any(|executor| executor.stop_requested.load(Ordering::SeqCst))
    }

    /// pushy.max_executors was lowered: the youngest leave.
    pub(super) fn stop_surplus(&self, most: usize) {
        let staying =
            |state: ExecutorState| matches!(state, ExecutorState::Idle | ExecutorState::Busy);
        let mut kept: Vec<_> = self
            .shared
            .executors
            .iter()
            .filter(|executor| {
                staying(executor.state()) && !executor.stop_requested.load(Ordering::SeqCst)
            })
            .collect();
        kept.sort_by_key(|executor| executor.started_at.load(Ordering::SeqCst));
        for executor in kept.iter().skip(most) {
            executor.ask_to_stop();
        }
    }

    /// No worker slot is free: said once, with the setting to raise, until one was. A worker that has just
    /// ended gives its slot back a moment later, so not at the first look.
    pub(super) fn starve(&mut self, now: i64) -> i64 {
        let since = *self.starved_since.get_or_insert(now);
        if now - since < SLICE_US {
            return now + SLOT_RETURN_US;
        }
        if self.shared.starved.swap(1, Ordering::SeqCst) == 0 {
            ereport::log(
                &Error::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    "jobs wait: no background worker slot is free",
                )
                .hint("Raise max_worker_processes: Pushy takes pushy.max_executors + 2, beside parallel queries and replication. Tried again every second; this is said once."),
            );
        }
        now + SLICE_US
    }

    pub(super) fn fed(&mut self) {
        self.shared.starved.store(0, Ordering::SeqCst);
        self.starved_since = None;
    }
}
