//! One slot per database: whether the extension is there, and when its scheduler is due.

use std::sync::atomic::{fence, AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::pg::condition::Condition;
use crate::shared::database_worker::DatabaseWorker;
use crate::shared::log::LogShared;
use crate::shared::numbers::{self, Numbers};
use crate::shared::queue_slot::QueueSlot;
use crate::shared::unpublished::{Unpublished, LEFT_OUT_KINDS};

pub use super::presence::{Look, Presence};
use pushy_core::presence::SaidPresence;

pub const MAX_DATABASES: usize = 1024;

/// Kinds of workers of which a database has one at most.
pub const WORKERS: usize = 3;
pub const SCHEDULER: usize = 0;
pub const RELAY: usize = 1;
pub const GATEWAY: usize = 2;

/// A due time that says: nothing is due.
pub const NEVER: i64 = i64::MAX;

#[repr(C, align(64))]
pub struct DatabaseSlot {
    /// 0: free.
    pub(super) oid: AtomicU32,
    pub(super) presence: SaidPresence,
    /// A scheduler has looked for events and orphans from before the server's start.
    pub is_inspected: AtomicBool,
    /// The server's log has said that queues here came from elsewhere.
    pub said_elsewhere: AtomicBool,
    /// The server's log has said that queues here found no place.
    pub said_placeless: AtomicBool,
    /// Changes with every committed change of a queue's definition or privileges.
    pub definitions: AtomicU64,
    /// Changes with every committed change of a subscription.
    pub subscriptions: AtomicU64,
    /// Before this time (µs) the scheduler does not read all queues again after a change, because the last reading took long.
    pub queues_rest_until: AtomicI64,
    /// The counter of definitions (plus one) when the launcher last looked for the database's name.
    pub name_read_at: AtomicU64,
    /// No worker comes here (pushy.databases, a database that takes no connections), as far as the launcher knows:
    /// it is not woken in vain. Taken back with each change of definitions, at which it looks again.
    pub(in crate::shared) left_out: AtomicBool,
    /// The earliest time (µs) at which the scheduler has something to do.
    pub due: AtomicI64,
    /// The earliest time (µs) for which a job may wait in the table; NEVER: none waits. 0: nothing is known of them.
    waiting_from: AtomicI64,
    /// The earliest time (µs) at which a lease may end; NEVER: there is none. 0: nothing is known of them.
    lease_ends: AtomicI64,
    /// It was looked for leases of sessions that have ended, and none has ended since.
    pub sessions_known: AtomicBool,
    /// Its workers, by their kind: `SCHEDULER`, `RELAY`, and what else the table of kinds (worker/supervise/launcher/kinds.rs) has.
    pub workers: [DatabaseWorker; WORKERS],
    /// Transactions that need the database empty of our workers: while there are any, no worker is started.
    pub quiesced: AtomicU32,
    /// Broadcast when a worker has left this database.
    pub worker_left: Condition,
    /// ALTER DATABASE … SET was run here: what its settings say may be another with each change of access.
    pub settings_doubted: AtomicBool,
    /// The scheduler is to read them.
    pub settings_unread: AtomicBool,
    /// What they say of the gateway, as a number that changes with it; 0: there is to be none.
    pub gateway_settings: AtomicU64,
    /// A gateway has asked for keys, or who may read, since the server's start: changes of that are published.
    gateway_has_come: AtomicBool,
    /// The scheduler is to publish that all may have changed.
    pub gateway_is_to_ask_again: AtomicBool,
    /// Rows written in the database as of the last sweep.
    pub swept_writes: AtomicU64,
    /// The sweep was asked for: COMMIT PREPARED, resume after a restore.
    pub sweep_requested: AtomicBool,
    /// Before this time (µs) the scheduler begins no other, whoever asked for it.
    pub asked_sweeps_rest_until: AtomicI64,
    /// Transactions of whose end nobody tells that found no place (untold.rs), and how many of them the scheduler has looked for.
    pub untold_beyond: AtomicU64,
    pub untold_inspected: AtomicU64,
    /// A sweep is under way.
    pub sweeping: AtomicBool,
    /// Before this time (µs) the launcher does not ask for the sweep of the minute, because the last sweep took long.
    pub sweep_rests_until: AtomicI64,
    /// Cancels may be left of jobs that nobody holds.
    pub cancels_requested: AtomicBool,
    /// Those that were promised in the server's life before are in shared memory again.
    pub cancels_recalled: AtomicBool,
    /// Executors that have ended, or let go of a procedure's job, without a word of how that ended.
    lost_holds: AtomicU64,
    /// So many of these, and the last life of the server, were looked for.
    recovered_holds: AtomicU64,
    /// Claims have passed over ready jobs that no executor holds: what was noted of them is in the slots of their queues.
    pub has_held: AtomicBool,
    /// Changes with every committed change of pushy_internal.rotation.
    pub rotations: AtomicU64,
    /// The end (µs) of a window of finished jobs that an executor wants a table for; 0: none.
    pub window_wanted: AtomicI64,
    /// No table for a window is to be had before this time (µs): all are taken.
    pub windows_taken_until: AtomicI64,
    /// Completed jobs that went to the parent of these tables since somebody asked for one.
    pub kept_in_parent: AtomicU64,
    /// Jobs may be left of a dropped queue.
    pub orphans_requested: AtomicBool,
    /// Before this time (µs) nobody looks for them, because the last look took long.
    pub orphans_rest_until: AtomicI64,
    /// Until then (µs) the history is not read again for what dropped queues have left.
    pub purge_rests_until: AtomicI64,
    /// Numbers of jobs, which are positions, of queues, watches and subscriptions.
    pub positions: Numbers,
    pub queue_numbers: Numbers,
    pub watch_numbers: Numbers,
    pub subscription_numbers: Numbers,
    /// What pushy_control left out, of each kind.
    pub unpublished: [Unpublished; LEFT_OUT_KINDS],
    /// When (µs) that is published; NEVER: there is none.
    pub unpublished_due: AtomicI64,
    pub log: LogShared,
}

impl DatabaseSlot {
    pub fn init(&self) {
        self.due.store(NEVER, Ordering::Relaxed);
        self.unpublished_due.store(NEVER, Ordering::Relaxed);
        self.worker_left.init();
        self.log.init();
    }

    /// For another database. Every field is named, because one that the slot's last database left here would be believed.
    pub(super) fn reset(&self) {
        let Self {
            oid: _,
            presence,
            is_inspected,
            said_elsewhere,
            said_placeless,
            // Sessions that remember a generation must never meet it again.
            definitions: _,
            subscriptions: _,
            queues_rest_until,
            name_read_at,
            left_out,
            due,
            waiting_from,
            lease_ends,
            sessions_known,
            workers,
            quiesced,
            worker_left: _,
            settings_doubted,
            settings_unread,
            gateway_settings,
            gateway_has_come,
            gateway_is_to_ask_again,
            swept_writes,
            sweep_requested,
            asked_sweeps_rest_until,
            untold_beyond,
            untold_inspected,
            sweeping,
            sweep_rests_until,
            cancels_requested,
            has_held,
            cancels_recalled,
            lost_holds,
            recovered_holds,
            // As `definitions`.
            rotations: _,
            window_wanted,
            windows_taken_until,
            kept_in_parent,
            orphans_requested,
            orphans_rest_until,
            purge_rests_until,
            positions: _,
            queue_numbers: _,
            watch_numbers: _,
            subscription_numbers: _,
            // By `forget_unpublished`.
            unpublished: _,
            unpublished_due: _,
            log,
        } = self;
        presence.announce(Presence::Unknown);
        for flag in [
            is_inspected,
            said_elsewhere,
            said_placeless,
            left_out,
            sweep_requested,
            sweeping,
            cancels_requested,
            has_held,
            cancels_recalled,
            orphans_requested,
            sessions_known,
            settings_doubted,
            settings_unread,
            gateway_has_come,
            gateway_is_to_ask_again,
        ] {
            flag.store(false, Ordering::SeqCst);
        }
        for time in [
            queues_rest_until,
            waiting_from,
            asked_sweeps_rest_until,
            lease_ends,
            sweep_rests_until,
            orphans_rest_until,
            purge_rests_until,
            window_wanted,
            windows_taken_until,
        ] {
            time.store(0, Ordering::SeqCst);
        }
        for count in [
            name_read_at,
            swept_writes,
            kept_in_parent,
            lost_holds,
            recovered_holds,
            untold_beyond,
            untold_inspected,
            gateway_settings,
        ] {
            count.store(0, Ordering::SeqCst);
        }
        due.store(NEVER, Ordering::SeqCst);
        quiesced.store(0, Ordering::SeqCst);
        self.forget_unpublished();
        numbers::reset(self);
        workers.iter().for_each(DatabaseWorker::reset);
        log.reset();
    }

    pub fn scheduler(&self) -> &DatabaseWorker {
        &self.workers[SCHEDULER]
    }

    pub fn relay(&self) -> &DatabaseWorker {
        &self.workers[RELAY]
    }

    pub fn gateway(&self) -> &DatabaseWorker {
        &self.workers[GATEWAY]
    }

    /// A gateway asks. Before the snapshot of what it is answered: what has ended unpublished by then is in that.
    pub fn note_gateway(&self) {
        self.gateway_has_come.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Whether one has asked. Behind the end of a transaction: the answers of one that comes later know of it.
    pub fn gateway_has_come(&self) -> bool {
        fence(Ordering::SeqCst);
        self.gateway_has_come.load(Ordering::SeqCst)
    }

    pub fn oid(&self) -> u32 {
        self.oid.load(Ordering::Acquire)
    }

    /// `QueueSlot::idle_mark` of a queue of this database; None also while a sweep is asked for or under way, because it may find
    /// ready rows that no commit has announced.
    pub fn idle_mark_of(&self, slot: &QueueSlot) -> Option<u64> {
        // In this order: the scheduler says that it sweeps before it takes the request.
        let is_announced =
            !self.sweep_requested.load(Ordering::SeqCst) && !self.sweeping.load(Ordering::SeqCst);
        is_announced.then(|| slot.idle_mark()).flatten()
    }

    /// One of those has ended. The place may have been given to another database since: it is never below none.
    pub(in crate::shared) fn end_quiesce(&self) {
        let ended = |transactions: u32| transactions.checked_sub(1);
        let _ = self
            .quiesced
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, ended);
    }

    pub fn is_quiesced(&self) -> bool {
        self.quiesced.load(Ordering::SeqCst) != 0
    }

    /// Says that the scheduler has something to do at `time`; true when that is earlier than known.
    pub fn announce_due(&self, time: i64) -> bool {
        self.due.fetch_min(time, Ordering::SeqCst) > time
    }

    /// Says that jobs may wait in the table for `time` or later. May be called in commit callbacks.
    pub fn announce_waiting(&self, time: i64) {
        self.waiting_from.fetch_min(time, Ordering::SeqCst);
    }

    /// Whether jobs may wait for a time that has come.
    pub fn has_waiting_by(&self, now: i64) -> bool {
        self.waiting_from.load(Ordering::SeqCst) <= now
    }

    /// Takes the time from which on jobs may wait. The caller looks for them with a later snapshot, and announces the time of
    /// the first that it finds; this same time when its look has failed.
    pub fn take_waiting(&self) -> i64 {
        self.waiting_from.swap(NEVER, Ordering::SeqCst)
    }

    /// Says that the lease of a procedure's job may be nobody's. By the executor that held it, after it has taken its
    /// token back.
    pub fn lose_hold(&self) {
        self.lost_holds.fetch_add(1, Ordering::SeqCst);
    }

    /// How often that was said, and once more for what was lost before the server started.
    pub fn lost_holds(&self) -> u64 {
        self.lost_holds.load(Ordering::SeqCst) + 1
    }

    /// All that were lost when `lost` was read are put back.
    pub fn have_recovered(&self, lost: u64) {
        self.recovered_holds.fetch_max(lost, Ordering::SeqCst);
    }

    pub fn has_lost_holds(&self) -> bool {
        self.recovered_holds.load(Ordering::SeqCst) != self.lost_holds()
    }

    /// Says that a lease may end at `time`. May be called in commit callbacks.
    pub fn announce_lease_end(&self, time: i64) {
        self.lease_ends.fetch_min(time, Ordering::SeqCst);
    }

    /// The clock was set back: those that were to end in a moment have hours. Also where none is announced, because a scheduler takes
    /// what is for as long as it looks.
    pub fn look_at_all_leases(&self) {
        self.announce_lease_end(0);
    }

    /// Takes the time from which on leases may end; as `take_waiting`.
    pub fn take_lease_ends(&self) -> i64 {
        self.lease_ends.swap(NEVER, Ordering::SeqCst)
    }
}
