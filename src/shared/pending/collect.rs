//! What a transaction does, collected as it does it: each function remembers one kind of thing for the end.

use std::sync::atomic::Ordering;

use super::announce::CALL_FOR_ACCESS;
use super::{with, Announcement, Count, Pending, PermitOf, Times, Why, PENDING};
use crate::pg::transaction;
use crate::pg::transaction_end;
use crate::pg::{identity, Oid};
use crate::shared;
use crate::shared::cancels::Promise;
use crate::shared::log::Gap;
use crate::shared::queue_slot::{QueueKey, NOTHING, PRIORITIES};
use crate::shared::statistics::QueueCounts;
use crate::shared::unpublished::Left;
use crate::shared::Shared;

impl Pending {
    pub(super) fn leave_out(&mut self, level: i32, kind: usize, left: Left) {
        let mut entry = self.left_out.iter_mut();
        match entry.find(|entry| (entry.0, entry.1) == (level, kind)) {
            Some(entry) => entry.2.add(left),
            None => self.left_out.push((level, kind, left)),
        }
    }
}

fn add(index: usize, key: QueueKey, priority: usize, position: u64, why: Why, jobs: u64) {
    with_announcement(index, key, why, |announcement| {
        announcement.low[priority] = announcement.low[priority].min(position);
        announcement.jobs += jobs;
    });
}

fn with_announcement(
    index: usize,
    key: QueueKey,
    why: Why,
    change: impl FnOnce(&mut Announcement),
) {
    let level = transaction::nest_level();
    with(|pending| {
        let announcement = pending.announcements.iter_mut().rev().find(|announcement| {
            announcement.index == index
                && announcement.key == key
                && announcement.level == level
                && announcement.why == why
        });
        if let Some(announcement) = announcement {
            change(announcement);
        } else {
            let mut new = Announcement {
                index,
                key,
                level,
                why,
                low: [NOTHING; PRIORITIES],
                jobs: 0,
                promised: false,
                begun: false,
            };
            change(&mut new);
            pending.announcements.push(new);
        }
    });
}

/// The caller was answered job numbers: its commit is refused if the queue is gone, or is being dropped.
pub fn promises(index: usize, key: QueueKey) {
    with_announcement(index, key, Why::Ready, |announcement| {
        announcement.promised = true
    });
}

/// A row becomes ready at commit. `new_jobs` counts in the queue's statistics.
pub fn ready(index: usize, key: QueueKey, priority: usize, position: i64, new_jobs: u64) {
    add(index, key, priority, position as u64, Why::Ready, new_jobs);
}

/// A row was found ready, which may have been announced before.
pub fn found(index: usize, key: QueueKey, priority: usize, position: i64) {
    add(index, key, priority, position as u64, Why::Found, 0);
}

/// Jobs are added that are not due yet: they count in the queue's statistics, and nothing is ready.
pub fn for_later(index: usize, key: QueueKey, new_jobs: u64) {
    add(index, key, 0, NOTHING, Why::Ready, new_jobs);
}

/// Jobs are ready, or added, of a queue that has no place in shared memory. If it has one at the commit, they are announced
/// there; whoever gives it one later has the table looked at from the first position.
pub fn unplaced(key: QueueKey) {
    let database_slot = shared::get().and_then(|shared| shared.find_database(key.database));
    let definitions = database_slot.map_or(0, |database_slot| {
        database_slot.definitions.load(Ordering::SeqCst)
    });
    with(|pending| {
        if !pending.unplaced.iter().any(|entry| entry.0 == key) {
            pending.unplaced.push((key, definitions));
        }
    });
}

/// A ready row is locked until this transaction ends, and may be free after it.
pub fn locked(index: usize, key: QueueKey, priority: usize, position: i64) {
    add(index, key, priority, position as u64, Why::Locked, 0);
}

/// Any ready rows of a queue may be locked until this transaction ends, and free after it.
pub fn all_locked(index: usize, key: QueueKey) {
    for priority in 0..PRIORITIES {
        locked(index, key, priority, 0);
    }
}

/// A job that waits for `time` (µs) is locked until this transaction ends: the scheduler passes over it.
pub fn locked_waiting(time: i64) {
    with(|pending| pending.locked_waiting = pending.locked_waiting.min(time));
}

/// Takes the watermarks of a queue for a claim, each when it is asked for, priority 0 first: the priorities that may have ready jobs,
/// and from which position on. Unless this transaction commits, they are put back.
pub fn take_watermarks(
    shared: &Shared,
    index: usize,
    key: QueueKey,
) -> impl Iterator<Item = (usize, u64)> + '_ {
    shared.clear_ready(index);
    (0..PRIORITIES).filter_map(move |priority| {
        let from = shared.take_low(index, priority);
        if from == NOTHING {
            return None;
        }
        add(index, key, priority, from, Why::Claimed, 0);
        Some((priority, from))
    })
}

/// The same, and from where on this transaction has made jobs ready itself, of which others hear when it has committed.
pub fn take_watermarks_and_own(
    shared: &Shared,
    index: usize,
    key: QueueKey,
) -> impl Iterator<Item = (usize, u64)> + '_ {
    let own = ready_here(index, key);
    shared.clear_ready(index);
    (0..PRIORITIES).filter_map(move |priority| {
        let from = shared.take_low(index, priority);
        if from != NOTHING {
            add(index, key, priority, from, Why::Claimed, 0);
        }
        let from = from.min(own[priority]);
        (from != NOTHING).then_some((priority, from))
    })
}

/// The first positions that this transaction has made ready, by priority.
fn ready_here(index: usize, key: QueueKey) -> [u64; PRIORITIES] {
    PENDING.with_borrow(|pending| {
        let mut low = [NOTHING; PRIORITIES];
        for one in &pending.announcements {
            if one.why == Why::Ready && one.index == index && one.key == key {
                for (low, own) in low.iter_mut().zip(one.low) {
                    *low = own.min(*low);
                }
            }
        }
        low
    })
}

/// Something is due at `time` (µs) once this transaction has committed.
pub fn due(time: i64) {
    with(|pending| pending.due = pending.due.min(time));
}

/// Jobs wait for `time` (µs), the first of them, once this transaction has committed; 0: look at all that wait.
pub fn waiting_from(time: i64) {
    with(|pending| pending.waiting_from = pending.waiting_from.min(time));
}

/// Asks on behalf of a role for the cancel of a job that an executor holds: promised at commit. None when too many are
/// asked for at a time.
pub fn ask_cancel(role: Oid, database: u32, job: i64) -> Option<Promise> {
    let level = transaction::nest_level();
    let unbound = identity::is_superuser(role);
    let cancels = &shared::get()?.cancels;
    let promise = cancels.ask(role.to_u32(), unbound, database, job)?;
    with(|pending| pending.cancels.push((level, promise)));
    Some(promise)
}

/// Asks again for a cancel that was promised before this life of the server, or elsewhere. None when there is no room.
pub fn recall_cancel(database: u32, job: i64) -> Option<Promise> {
    let promise = shared::get()?.cancels.ask_again(database, job)?;
    let level = transaction::nest_level();
    with(|pending| pending.cancels.push((level, promise)));
    Some(promise)
}

/// Whether this transaction has asked for the cancel of this job.
pub fn has_asked(job: i64) -> bool {
    PENDING.with_borrow(|pending| pending.cancels.iter().any(|(_, entry)| entry.job == job))
}

/// Withdraws the request for a cancel: the job's outcome was accepted first.
pub fn take_back(promise: Promise) {
    with(|pending| {
        pending
            .cancels
            .retain(|(_, other)| other.cell != promise.cell)
    });
    if let Some(shared) = shared::get() {
        shared.cancels.withdraw(promise);
    }
}

/// Adds to the statistics of the queue in this slot when this transaction commits, and wakes those who wait for its jobs.
pub fn count(index: usize, key: QueueKey, tally: &QueueCounts) {
    let level = transaction::nest_level();
    with(|pending| {
        let entry = pending
            .counts
            .iter_mut()
            .find(|entry| entry.level == level && entry.index == index && entry.key == key);
        match entry {
            Some(entry) => entry.tally.add(tally),
            None => pending.counts.push(Count {
                level,
                index,
                key,
                tally: *tally,
            }),
        }
    });
}

/// The same for how long a job has waited and run (µs).
pub fn count_times(index: usize, key: QueueKey, wait: u64, run: u64) {
    let level = transaction::nest_level();
    with(|pending| {
        pending.times.push(Times {
            level,
            index,
            key,
            wait,
            run,
        });
    });
}

/// An event of this kind is left out of pushy_control: a scheduler publishes the last of them, once this transaction has committed.
pub fn left_out(kind: usize, one: Left) {
    let level = transaction::nest_level();
    with(|pending| pending.leave_out(level, kind, one));
}

/// What this transaction has left out so far: the caller publishes it.
pub fn take_left_out() -> Vec<(usize, Left)> {
    PENDING.with_borrow_mut(|pending| {
        let taken = pending.left_out.drain(..);
        taken.map(|(_, kind, left)| (kind, left)).collect()
    })
}

/// It changes what gateways have been told, and publishes nothing of it, because none has come: if one has come by its end the
/// scheduler tells that to ask for all again.
pub fn unsaid_to_gateways() {
    with(|pending| pending.unsaid_to_gateways = true);
}

/// Whether that was so: the caller publishes it.
pub fn take_unsaid_to_gateways() -> bool {
    PENDING.with_borrow_mut(|pending| std::mem::take(&mut pending.unsaid_to_gateways))
}

/// The scheduler looks for rows nobody announced, at commit.
pub fn sweep() {
    with(|pending| pending.sweep = true);
}

/// The transaction brings more than is collected here: should it be prepared, its end has everything looked at.
pub fn unsaid() {
    with(|pending| pending.unsaid = true);
}

/// The assignment of tables to windows changes at commit: processes that have cached it read it again.
pub fn rotated() {
    with(|pending| pending.rotated = true);
}

/// The launcher tries again at once what it could not start, at commit.
pub fn access_changed() {
    CALL_FOR_ACCESS.prepare();
    with(|pending| pending.access = true);
}

/// The relay looks into the log, at commit.
pub fn logged() {
    with(|pending| pending.logged = true);
}

/// Notices of this transaction are in no log: if it commits, readers are to resync.
#[cold]
pub fn unlogged() {
    with(|pending| {
        pending.logged = true;
        pending.unlogged = true;
    });
}

/// This transaction has left a marker that says so, when this was known of the gap.
pub fn left_marker(gap: Gap) {
    with(|pending| pending.marker = Some(gap));
}

/// As `logged`, and the relay comes at once, because a LISTENer waits.
pub fn awaited() {
    with(|pending| pending.awaited = true);
}

/// The permit of the queue in this slot goes back when the transaction ends.
pub fn holds_permit(index: usize, key: QueueKey, of: PermitOf) {
    with(|pending| pending.permits.push((index, key, of)));
}

/// Whether this transaction holds a permit of the queue in this slot, whichever for.
pub fn has_permit(index: usize, key: QueueKey) -> bool {
    PENDING.with_borrow(|pending| {
        let mut permits = pending.permits.iter();
        permits.any(|held| (held.0, held.1) == (index, key))
    })
}

/// Workers may enter this database again when the transaction ends. False when that was said before.
pub fn quiesced(database: u32) -> bool {
    with(|pending| {
        let is_new = !pending.quiesced.contains(&database);
        if is_new {
            pending.quiesced.push(database);
        }
        is_new
    })
}

/// The transaction is about to be prepared under this name.
pub fn prepares(name: &[u8]) {
    transaction_end::expect_prepare();
    // Without `expect`: a transaction that has collected nothing does not concern us.
    PENDING.with_borrow_mut(|pending| pending.prepares = Some(name.to_vec()));
}

pub fn drops_database(database: u32) {
    with(|pending| pending.dropped_databases.push(database));
}
