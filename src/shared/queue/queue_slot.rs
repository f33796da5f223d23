//! One slot per queue: what shared memory has of it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicU8, Ordering};

use pushy_core::lease_count::LeaseCount;
use pushy_core::standing::Standing;

use crate::pg::condition::Condition;

pub const PRIORITIES: usize = 10;

/// A watermark that says: nothing to do.
pub const NOTHING: u64 = u64::MAX;

/// Which queue of which database: never reused while the server runs, because a transaction that drops the extension and creates
/// it again may yet be rolled back, and the slots of both lives are here meanwhile (installation/created.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueKey {
    pub database: u32,
    pub queue_id: i32,
}

impl QueueKey {
    pub(in crate::shared) fn packed(self) -> u64 {
        (u64::from(self.database) << 32) | u64::from(self.queue_id as u32)
    }

    pub(in crate::shared) fn unpacked(packed: u64) -> Self {
        Self {
            database: (packed >> 32) as u32,
            queue_id: packed as u32 as i32,
        }
    }
}

/// What executors and the launcher must know of a queue without reading its row.
#[derive(Clone, Copy, Debug)]
pub struct QueueFacts {
    pub key: QueueKey,
    /// OID of the extension: queues of one CREATE EXTENSION are not those of the next.
    pub epoch: u32,
    pub role: u32,
    /// Whose it is, in this cluster; 0: it came from elsewhere.
    pub owner: u32,
    /// How many executors at a time; 0: as many as there are.
    pub concurrency: u32,
    pub standing: Standing,
    /// The hash of the channel where LISTENers hear of work; 0: it has none.
    pub channel: u64,
}

/// One queue. Its statistics are in an array of their own (`Shared::statistics_of`): they are eight times as big, and a
/// start of the server reads thousands of slots of which few have any.
#[repr(C, align(64))]
pub struct QueueSlot {
    /// 0: never used; 1: freed (probing goes on); else the key.
    pub(in crate::shared) key: AtomicU64,
    /// Of a slot that is free, while the statistics here are those of a queue in the server's life before: that queue's key.
    pub(in crate::shared) kept_for: AtomicU64,
    pub(in crate::shared) epoch: AtomicU32,
    pub role: AtomicU32,
    pub(in crate::shared) owner: AtomicU32,
    pub concurrency: AtomicU32,
    /// Executors that work on it now.
    pub running: AtomicU32,
    /// Those of them that sessions hold which have called queue_run.
    pub(super) sessions: AtomicU32,
    /// Those of these that only claim jobs for workers outside.
    pub(super) claims: AtomicU32,
    /// How many jobs workers outside have leased: `LeaseCount`.
    pub(super) leases: AtomicU64,
    /// Permits given so far.
    pub(in crate::shared) permits: AtomicU64,
    /// Transactions that commit now, with jobs that they announce in a moment.
    pub(in crate::shared) announcing: AtomicU32,
    /// A session that waits for all jobs wants to know when none of these is left.
    pub(in crate::shared) end_awaited: AtomicBool,
    /// Transactions that commit now, with jobs, and have changed catalogs: not every session knows yet what they changed.
    /// Of whatever queue the slot had when each began to.
    pub(in crate::shared) changing: AtomicU32,
    /// A transaction that drops the queue has not ended yet.
    pub(in crate::shared) closing: AtomicBool,
    /// How many times a claim has passed over locked rows, and up to which of these times a look at the table has found no
    /// unfinished job.
    pub(in crate::shared) passed_over: AtomicU64,
    pub(in crate::shared) passed_over_gone: AtomicU64,
    /// Priorities, as bits, of which claims have passed over ready jobs that no executor holds, and the lowest position of these.
    pub(in crate::shared) held_priorities: AtomicU32,
    pub(in crate::shared) held_from: AtomicU64,
    /// What its definition says against it.
    pub(in crate::shared) standing: AtomicU8,
    /// How many commits have said here what the definition says since.
    pub(in crate::shared) said: AtomicU64,
    /// Where the place of its database is, as far as somebody has looked: see `Shared::facts`.
    pub(in crate::shared) database_at: AtomicU32,
    /// Until then (µs) batches are of one job: a larger one failed to commit.
    pub single_until: AtomicI64,
    /// No executor tries it before then (µs): its last batches failed for want of something in the server.
    pub(in crate::shared) suspended_until: AtomicI64,
    /// How many batches failed so in a row.
    pub(in crate::shared) failures: AtomicU32,
    /// When (µs) the launcher tries again to start an executor for this queue, after some that did not come up; 0: none
    /// failed.
    pub start_retry_at: AtomicI64,
    /// Mean run time of a job in ns, 0: unknown.
    pub mean_ns: AtomicU64,
    /// Jobs of the queue were announced since an executor last looked into it. Such queues come before those of which nothing
    /// is known: after a start of the server these may be thousands.
    pub announced: AtomicBool,
    /// Per priority, the lowest position that may be ready.
    pub low: [AtomicU64; PRIORITIES],
    /// Broadcast whenever jobs of this queue finished.
    pub finished: Condition,
    /// Signalled when a worker outside may claim jobs: one sleeper for one announcement.
    pub claimable: Condition,
    /// When (µs) that was last signalled, and nobody has claimed since; 0: never.
    pub signalled_at: AtomicI64,
    /// How many times there was a reason to.
    signals: AtomicU64,
    /// When (µs) a worker outside last asked for jobs; 0: not since the server started.
    pub asked_at: AtomicI64,
    /// The hash of its channel, whether LISTENers there have been told of what is ready or are about to be, and whether the relay has
    /// yet to tell them.
    channel: AtomicU64,
    pub is_told: AtomicBool,
    pub to_tell: AtomicBool,
    /// Broadcast when no job of this queue is ready or running any more, after `drains` was raised: sessions that wait for
    /// all jobs must not wake for each batch.
    pub(in crate::shared) drained: Condition,
    pub(in crate::shared) drains: AtomicU64,
}

pub(super) const NEVER: u64 = 0;
pub(super) const FREED: u64 = 1;

impl QueueSlot {
    /// Once, before the slot's first queue, not at the start of the server: that would touch memory that may never be needed.
    pub(super) fn init(&self) {
        self.finished.init();
        self.drained.init();
        self.claimable.init();
    }

    /// How many times there was something to claim, or room to claim it in.
    pub fn signals(&self) -> u64 {
        self.signals.load(Ordering::SeqCst)
    }

    /// Says that there is.
    pub(in crate::shared) fn count_signal(&self) {
        self.signals.fetch_add(1, Ordering::SeqCst);
    }

    pub(in crate::shared) fn channel(&self) -> u64 {
        self.channel.load(Ordering::SeqCst)
    }

    /// Notes that somebody is about to claim, at a time (µs) that was never noted before.
    pub(in crate::shared) fn note_claimer(&self, now: i64) {
        let later = |noted: i64| Some(now.max(noted + 1));
        let _ = self
            .signalled_at
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// A claim that is awaited is awaited still, and who looks just now forgets nothing of it; 0: none is awaited any more.
    pub(in crate::shared) fn note_again(&self) -> i64 {
        let again = |noted: i64| (noted != 0).then_some(noted + 1);
        let before = self
            .signalled_at
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, again);
        before.map_or(0, |noted| noted + 1)
    }

    pub fn noted(&self) -> i64 {
        self.signalled_at.load(Ordering::SeqCst)
    }

    /// Nobody has claimed since `noted`, and there was nothing to claim.
    pub fn forget_claimer(&self, noted: i64) {
        let _ = self
            .signalled_at
            .compare_exchange(noted, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// The queue here, if the slot is taken.
    pub fn key(&self) -> Option<QueueKey> {
        match self.key.load(Ordering::Acquire) {
            NEVER | FREED => None,
            packed => Some(QueueKey::unpacked(packed)),
        }
    }

    /// The queue whose statistics are here, and its epoch.
    pub(in crate::shared) fn counts_for(&self) -> Option<(QueueKey, u32)> {
        let kept_for = || match self.kept_for.load(Ordering::Relaxed) {
            0 => None,
            packed => Some(QueueKey::unpacked(packed)),
        };
        let key = self.key().or_else(kept_for)?;
        Some((key, self.epoch.load(Ordering::Relaxed)))
    }

    pub fn is(&self, key: QueueKey) -> bool {
        self.key.load(Ordering::Acquire) == key.packed()
    }

    /// What the queue's definition says against it.
    pub fn standing(&self) -> Standing {
        Standing::from_u8(self.standing.load(Ordering::SeqCst))
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing.as_u8(), Ordering::SeqCst);
    }

    /// A commit says what the definition says from here on.
    pub(in crate::shared) fn say(&self, facts: &QueueFacts) {
        // First: who applies what it has read before learns that this came.
        self.said.fetch_add(1, Ordering::SeqCst);
        // Rows may have come with a load, or been written by hand.
        self.change_lease_count(LeaseCount::forgotten);
        self.apply(facts);
    }

    /// To be asked before the definition is read.
    pub fn said(&self) -> u64 {
        self.said.load(Ordering::SeqCst)
    }

    /// Takes what was read of the definition, unless a commit has said something later; false when one may have, in the midst of
    /// that: the definition is to be read again.
    pub fn apply_unless_said(&self, facts: &QueueFacts, said: u64) -> bool {
        if self.said() != said {
            return true;
        }
        self.apply(facts);
        self.said() == said
    }

    /// Takes what the definition says.
    fn apply(&self, facts: &QueueFacts) {
        self.role.store(facts.role, Ordering::SeqCst);
        self.owner.store(facts.owner, Ordering::SeqCst);
        self.concurrency.store(facts.concurrency, Ordering::SeqCst);
        let channel = self.channel.swap(facts.channel, Ordering::SeqCst);
        if self.standing() != facts.standing || channel != facts.channel {
            self.is_told.store(false, Ordering::SeqCst);
        }
        self.set_standing(facts.standing);
        // What was in the way may be gone with the change.
        self.end_suspension();
    }

    /// How often this queue ran dry: read it, look at the table, then `wait_drain`.
    pub fn drains(&self) -> u64 {
        self.drains.load(Ordering::SeqCst)
    }

    /// Wakes those who wait for the queue to run dry: it may have. May be called in commit callbacks.
    pub fn announce_drained(&self) {
        self.drains.fetch_add(1, Ordering::SeqCst);
        self.drained.broadcast();
    }

    /// Wakes all who wait at this place, because what they wait for may be another thing by now, or gone: each looks it up again. May
    /// be called in commit callbacks.
    #[cold]
    pub(in crate::shared) fn wake_all(&self) {
        self.count_signal();
        self.claimable.broadcast();
        self.finished.broadcast();
        self.announce_drained();
    }

    /// Sleeps until the queue has run dry since `seen` was read, or `timeout` has passed.
    pub fn wait_drain(&self, seen: u64, timeout: std::time::Duration) {
        self.drained.wait_change(timeout, || self.drains() != seen);
    }

    /// Whether some priority may have ready jobs.
    pub fn may_be_ready(&self) -> bool {
        self.low
            .iter()
            .any(|low| low.load(Ordering::SeqCst) != NOTHING)
    }

    /// For another queue. Every field is named, because what the slot's last queue left here would be believed.
    pub(super) fn start(&self, facts: &QueueFacts) {
        let Self {
            key: _,
            kept_for: _,
            epoch,
            // By `apply`.
            role: _,
            owner: _,
            concurrency: _,
            standing: _,
            channel: _,
            is_told: _,
            // Looked at before it is believed.
            database_at: _,
            running,
            sessions,
            // These grow only: who compares two looks must not meet the first again.
            permits: _,
            drains: _,
            said: _,
            // Transactions that end now take their own back.
            announcing: _,
            changing: _,
            end_awaited,
            closing,
            to_tell,
            // Below: its round grows only.
            leases: _,
            claims,
            passed_over,
            passed_over_gone,
            held_priorities,
            held_from,
            single_until,
            // By `release`.
            suspended_until: _,
            failures: _,
            start_retry_at,
            mean_ns,
            announced,
            low,
            finished: _,
            drained: _,
            claimable: _,
            signalled_at,
            asked_at,
            // Grows only.
            signals: _,
        } = self;
        epoch.store(facts.epoch, Ordering::Relaxed);
        running.store(0, Ordering::Relaxed);
        sessions.store(0, Ordering::Relaxed);
        claims.store(0, Ordering::Relaxed);
        self.change_lease_count(LeaseCount::forgotten);
        for count in [passed_over, passed_over_gone, mean_ns] {
            count.store(0, Ordering::Relaxed);
        }
        held_priorities.store(0, Ordering::Relaxed);
        held_from.store(NOTHING, Ordering::Relaxed);
        for time in [single_until, start_retry_at, signalled_at, asked_at] {
            time.store(0, Ordering::Relaxed);
        }
        for flag in [end_awaited, closing, announced, to_tell] {
            flag.store(false, Ordering::Relaxed);
        }
        self.end_suspension();
        // Nothing is known yet of what is in the table: look from the first position.
        for low in low {
            low.store(0, Ordering::SeqCst);
        }
        self.apply(facts);
    }
}
