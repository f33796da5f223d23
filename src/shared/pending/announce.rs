//! The end of a transaction: what was collected is announced. In callbacks, which only flip atomics, set latches
//! and send signals.

use std::sync::atomic::Ordering;

use crate::pg::release::AtRelease;
use crate::pg::transaction_end::End;
use crate::pg::{clock, signals, transaction};
use crate::shared::cancels::Promise;
use crate::shared::database::NEVER;
use crate::shared::pending::take_back::{forget_sequences, free_cancels, free_created, reopen};
use crate::shared::pending::{Announcement, Pending, PermitOf, Why, PENDING};
use crate::shared::queue_slot::NOTHING;
use crate::shared::{self, executor, Shared};

/// The launcher looks at roles and databases, so it is called when they are seen to have changed.
pub(super) static CALL_FOR_ACCESS: AtRelease = AtRelease::new(call_for_access);

fn call_for_access() {
    if let Some(shared) = shared::get() {
        shared.access_changed.store(true, Ordering::SeqCst);
        shared.call_launcher();
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub(in crate::shared::pending) fn at_end(end: End) {
    PENDING.with(|cell| {
        let Ok(mut pending) = cell.try_borrow_mut() else {
            return;
        };
        if let Some(shared) = shared::get() {
            if end != End::Commit {
                // First: an executor that finds a cancel still requested leaves the job to this process, which announces
                // it below.
                free_cancels(shared, &pending.cancels, 0);
            }
            if end == End::Commit {
                pending.announce_commit(shared);
            } else {
                // A queue that is prepared gets its slot after COMMIT PREPARED, from the scheduler: nobody else would give
                // it up after ROLLBACK PREPARED.
                free_created(shared, &pending.changes, 0);
            }
            if end == End::Abort {
                announce_locked(shared, &pending.announcements);
                announce_waiting(shared, pending.locked_waiting);
            }
            if end != End::Commit {
                reopen(shared, &pending.changes, 0);
                forget_sequences(shared, &pending.presence, 0);
            }
            pending.give_back_at_end(shared, end);
        }
        pending.clear();
    });
}

/// Makes the scheduler look for jobs of queues that are gone.
pub fn ask_for_orphans(shared: &Shared, database: u32) {
    if let Some(slot) = shared.find_database(database) {
        slot.orphans_requested.store(true, Ordering::SeqCst);
        shared.announce_due(slot, 0);
    }
}

#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub(in crate::shared::pending) fn announce(shared: &Shared, announcement: &Announcement) {
    for (priority, position) in announcement.low.iter().enumerate() {
        if *position != NOTHING {
            shared.announce(announcement.index, announcement.key, priority, *position);
        }
    }
    match announcement.why {
        Why::Found => shared.wake_for_found(announcement.index),
        _ => shared.wake_for(announcement.index),
    }
}

fn announce_locked(shared: &Shared, announcements: &[Announcement]) {
    for announcement in announcements {
        if announcement.why != Why::Ready {
            announce(shared, announcement);
        }
    }
}

/// Says from when on jobs wait.
pub(in crate::shared::pending) fn announce_waiting(shared: &Shared, from: i64) {
    if from == NEVER {
        return;
    }
    if let Some(slot) = shared.find_database(crate::pg::database::current()) {
        // Before the scheduler is woken: it looks from there on.
        slot.announce_waiting(from);
        shared.announce_due(slot, from);
    }
}

/// Lets everybody see a cancel, and interrupts the job if it runs. Its executor looks when its batch is over; where
/// there is none, the scheduler must.
fn announce_cancel(shared: &Shared, database: u32, promise: Promise) {
    let Some(database_slot) = shared.find_database(database) else {
        return shared.cancels.withdraw(promise);
    };
    shared.cancels.commit(promise);
    if !interrupt(shared, database, promise.job) {
        shared.ask_for_cancels(database_slot);
    }
}

/// Interrupts a job where it runs; false when no executor holds it.
pub fn interrupt(shared: &Shared, database: u32, job: i64) -> bool {
    let mut is_held = false;
    for executor in shared.executors_holding(database, job) {
        is_held = true;
        if executor.job.load(Ordering::SeqCst) == job {
            executor.cancelled.store(job, Ordering::SeqCst);
            signals::cancel(executor.pid.load(Ordering::SeqCst));
        }
    }
    is_held
}

impl Pending {
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    fn announce_commit(&self, shared: &Shared) {
        let database = crate::pg::database::current();
        if !self.changes.is_empty() || !self.presence.is_empty() || self.rotated {
            self.announce_changes(shared, database);
        }
        if !self.announcements.is_empty() || self.logged || !self.unplaced.is_empty() {
            if let Some(slot) = shared.find_database(database) {
                if slot.witness() {
                    // A queue that may not run calls nobody.
                    shared.call_launcher_to(slot);
                }
            }
        }
        // Before anybody is told that there is room for another.
        self.count_leases(shared);
        for announcement in &self.announcements {
            if announcement.why == Why::Claimed {
                continue;
            }
            let slot = &shared.queues()[announcement.index];
            if !slot.is(announcement.key) {
                // The queue was dropped after this transaction had looked it up.
                ask_for_orphans(shared, database);
                continue;
            }
            let enqueued = &shared.statistics_of(announcement.index).enqueued;
            enqueued.fetch_add(announcement.jobs, Ordering::Relaxed);
            announce(shared, announcement);
        }
        if !self.unplaced.is_empty() {
            self.announce_unplaced(shared, database);
        }
        announce_waiting(shared, self.waiting_from.min(self.locked_waiting));
        if self.lease_ends != NEVER {
            if let Some(slot) = shared.find_database(database) {
                let said_at = self.leases.iter().map(|change| change.said_at).max();
                // Where the clock was set back since, the scheduler may have seen to those of later than now already.
                let is_back = said_at.is_some_and(|said_at| said_at > clock::now().0);
                let ends = if is_back { 0 } else { self.lease_ends };
                // Before the scheduler is woken: it looks from there on.
                slot.announce_lease_end(ends);
                shared.announce_due(slot, ends);
            }
        }
        if self.due != NEVER {
            if let Some(slot) = shared.find_database(database) {
                shared.announce_due(slot, self.due);
            }
        }
        if self.sweep {
            if let Some(slot) = shared.find_database(database) {
                // What was prepared may be CREATE EXTENSION.
                slot.doubt_looks();
                shared.doubt_leases_of(database);
                // Rows that no commit has announced may be of a queue that is gone.
                slot.request_looks();
                shared.announce_due(slot, 0);
                shared.call_launcher();
            }
        }
        if self.logged {
            if let Some(slot) = shared.find_database(database) {
                if let Some(gap) = self.marker {
                    // Everybody sees that it has committed.
                    slot.log.open_gap(gap);
                }
                shared.announce_logged(slot, self.awaited);
            }
        }
        if self.access {
            CALL_FOR_ACCESS.call();
        }
        for (_, promise) in &self.cancels {
            announce_cancel(shared, database, *promise);
        }
        if let Some(database_slot) = shared
            .find_database(database)
            .filter(|_| !self.left_out.is_empty())
        {
            for (_, kind, left) in &self.left_out {
                database_slot.unpublished[*kind].add(*left);
            }
            shared.announce_unpublished(database_slot);
        }
        if self.unsaid_to_gateways {
            // Everybody sees what it has changed.
            let slot = shared.find_database(database);
            if let Some(slot) = slot.filter(|slot| slot.gateway_has_come()) {
                slot.gateway_is_to_ask_again.store(true, Ordering::SeqCst);
                shared.announce_unpublished(slot);
            }
        }
        for count in &self.counts {
            let slot = &shared.queues()[count.index];
            if !slot.is(count.key) {
                // The queue was dropped, and another one may have its place.
                continue;
            }
            shared.statistics_of(count.index).count(&count.tally);
            if count.tally.finished() > 0 {
                slot.finished.broadcast();
                // An executor announces it with its permit, because who waits for all jobs must not wake for each batch.
                if executor::mine().is_none() {
                    slot.announce_drained();
                }
            }
        }
        for times in &self.times {
            if shared.queues()[times.index].is(times.key) {
                let statistics = shared.statistics_of(times.index);
                statistics.count_times(times.wait, times.run);
            }
        }
        for dropped in self.dropped_databases.iter().copied() {
            shared.free_database(dropped);
        }
    }

    /// Whoever ends the transaction finds what is to be announced then. True where that includes the databases that it keeps workers out of:
    /// it does so until COMMIT PREPARED or ROLLBACK PREPARED.
    fn note_prepared(&self, shared: &Shared) -> bool {
        let (here, brings) = (crate::pg::database::current(), self.brings(shared));
        if let Some(name) = &self.prepares {
            let xid = transaction::xid_if_any();
            return shared.note_prepared(here, name, xid, &brings, &self.quiesced);
        }
        // By a worker that applies a subscription, of whose COMMIT PREPARED no statement tells.
        shared.note_untold(here, transaction::xid_if_any(), clock::now().0, &brings);
        false
    }

    /// Says how many leases there are of a queue, while the claims among them still hold its lock.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    fn count_leases(&self, shared: &Shared) {
        for change in &self.leases {
            if change.added == 0 && change.ended == 0 {
                continue;
            }
            let Some(index) = shared.find_queue(change.key) else {
                continue;
            };
            let slot = &shared.queues()[index];
            slot.change_lease_count(|count| {
                let count = count.added(change.added);
                match change.round {
                    _ if change.ended == 0 => count,
                    Some(round) => count.ended(change.ended, round),
                    // It had no place then.
                    None => count.forgotten(),
                }
            });
        }
    }

    /// What is given back however the transaction ended.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    fn give_back_at_end(&self, shared: &Shared, end: End) {
        for announcement in self
            .announcements
            .iter()
            .filter(|announcement| announcement.begun)
        {
            shared.queues()[announcement.index].end_announcing();
        }
        for (index, key, of) in &self.permits {
            let slot = &shared.queues()[*index];
            match of {
                PermitOf::Jobs => {
                    slot.return_permit_of_session(*key);
                    shared.set_ready(*index);
                    shared.wake_for(*index);
                }
                // It was no limit: nobody has gone without.
                PermitOf::Claim => slot.return_permit_of_claim(*key),
            }
        }
        if end == End::Prepare && self.note_prepared(shared) {
            return;
        }
        for oid in &self.quiesced {
            if let Some(slot) = shared.find_database(*oid) {
                for (index, queue) in shared.queues().iter().enumerate() {
                    if queue.key().is_some_and(|key| key.database == *oid) {
                        shared.set_ready(index);
                    }
                }
                shared.end_quiesce(slot);
            }
            shared.call_launcher();
        }
    }
}
