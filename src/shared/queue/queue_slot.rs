//! One slot per queue: its watermarks, its permits, who waits for it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicU8, Ordering};

use pushy_core::gate::Standing;

use crate::pg::condition::Condition;
use crate::shared::database::Presence;
use crate::shared::Shared;

pub const PRIORITIES: usize = 10;

/// A watermark that says: nothing to do.
pub const NOTHING: u64 = u64::MAX;

/// Which queue of which database: never reused while the server runs, because a transaction that drops the extension and creates
/// it again may yet be rolled back, and the slots of both lives are here meanwhile (installation.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueKey {
    pub database: u32,
    pub queue_id: i32,
}

impl QueueKey {
    fn packed(self) -> u64 {
        (u64::from(self.database) << 32) | u64::from(self.queue_id as u32)
    }

    fn unpacked(packed: u64) -> Self {
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
    /// OID of the extension: tells queues of one CREATE EXTENSION from those of the next.
    pub epoch: u32,
    pub role: u32,
    /// Whose it is, in this cluster; 0: it came from elsewhere.
    pub owner: u32,
    /// How many executors at a time; 0: as many as there are.
    pub concurrency: u32,
    pub standing: Standing,
}

/// One queue. Its statistics are in an array of their own (`Shared::statistics_of`): they are eight times as big, and a
/// start of the server reads thousands of slots of which few have any.
#[repr(C, align(64))]
pub struct QueueSlot {
    /// 0: never used; 1: freed (probing goes on); else the key.
    key: AtomicU64,
    /// Of a slot that is free, while the statistics here are those of a queue in the server's life before: that queue's key.
    kept_for: AtomicU64,
    epoch: AtomicU32,
    pub role: AtomicU32,
    owner: AtomicU32,
    pub concurrency: AtomicU32,
    /// Executors that work on it now.
    pub running: AtomicU32,
    /// Permits given so far.
    permits: AtomicU64,
    /// Transactions that commit now, with jobs that they announce in a moment.
    announcing: AtomicU32,
    /// Transactions that commit now, with jobs, and have changed catalogs: not everybody is told yet of what they changed.
    /// Of whatever queue the slot had when each began to.
    changing: AtomicU32,
    /// A transaction that drops the queue has not ended yet.
    closing: AtomicBool,
    /// How many times a claim has passed over locked rows, and up to which of these times a look at the table has found no
    /// unfinished job.
    passed_over: AtomicU64,
    passed_over_gone: AtomicU64,
    /// What its definition says against it.
    standing: AtomicU8,
    /// Where the place of its database is, as far as somebody has looked: see `Shared::facts`.
    pub(in crate::shared) database_at: AtomicU32,
    /// Until then (µs) batches are of one job: a larger one failed to commit.
    pub single_until: AtomicI64,
    /// No executor tries it before then (µs): its last batches failed for want of something in the server.
    pub(in crate::shared) held_until: AtomicI64,
    /// How many batches failed so in a row.
    failures: AtomicU32,
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
    /// Broadcast when no job of this queue is ready or running any more, after `drains` was raised: sessions that wait for
    /// all jobs must not wake for each batch.
    drained: Condition,
    drains: AtomicU64,
}

const NEVER: u64 = 0;
const FREED: u64 = 1;

impl QueueSlot {
    /// Once, before the slot's first queue, not at the start of the server: that would touch memory that may never be needed.
    fn init(&self) {
        self.finished.init();
        self.drained.init();
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

    fn set_standing(&self, standing: Standing) {
        self.standing.store(standing.as_u8(), Ordering::SeqCst);
    }

    /// Takes what a committed change of the definition says.
    pub fn apply(&self, facts: &QueueFacts) {
        self.role.store(facts.role, Ordering::SeqCst);
        self.owner.store(facts.owner, Ordering::SeqCst);
        self.concurrency.store(facts.concurrency, Ordering::SeqCst);
        self.set_standing(facts.standing);
        // What was in the way may be gone with the change.
        self.release();
    }

    /// How often this queue ran dry: read it, look at the table, then `wait_drain`.
    pub fn drains(&self) -> u64 {
        self.drains.load(Ordering::SeqCst)
    }

    /// Wakes those who wait for the queue to run dry: it may have. Fit for commit callbacks.
    pub fn tell_drain(&self) {
        self.drains.fetch_add(1, Ordering::SeqCst);
        self.drained.broadcast();
    }

    /// Sleeps until the queue has run dry since `seen` was read, or `timeout` has passed.
    pub fn wait_drain(&self, seen: u64, timeout: std::time::Duration) {
        self.drained
            .wait_until(timeout, || (self.drains() != seen).then_some(()));
    }

    /// When executors may try the queue again (µs); 0 or past: now.
    pub fn held_until(&self) -> i64 {
        self.held_until.load(Ordering::SeqCst)
    }

    /// Keeps executors from the queue for 0.1 to 51 seconds, longer after each failure in a row; true for
    /// the first.
    pub fn hold(&self, now: i64) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::SeqCst);
        let until = now + (100_000 << failures.min(9));
        self.held_until.store(until, Ordering::SeqCst);
        failures == 0
    }

    /// Keeps executors from the queue until a time (µs), because somebody holds a lock.
    pub fn hold_until(&self, time: i64) {
        self.held_until.store(time, Ordering::SeqCst);
    }

    /// A batch has committed: the next failure is a first one.
    pub fn release(&self) {
        self.held_until.store(0, Ordering::SeqCst);
        self.failures.store(0, Ordering::SeqCst);
    }

    /// Whether the queue has failed since a batch last committed.
    pub fn is_failing(&self) -> bool {
        self.failures.load(Ordering::SeqCst) != 0
    }

    /// Takes one of the queue's permits; false when all are in use.
    pub fn take_permit(&self) -> bool {
        self.running
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |running| {
                let limit = self.concurrency.load(Ordering::SeqCst);
                (limit == 0 || running < limit).then_some(running + 1)
            })
            .inspect(|_| {
                // Before the watermarks are taken: see `rest`.
                self.permits.fetch_add(1, Ordering::SeqCst);
            })
            .is_ok()
    }

    /// A claim has passed over rows that somebody has locked: they are below the watermark, and nobody holds a permit for
    /// them.
    pub fn pass_over(&self) {
        self.passed_over.fetch_add(1, Ordering::SeqCst);
    }

    /// How many times claims have passed over locked rows. Read before the table is looked at.
    pub fn times_passed_over(&self) -> u64 {
        self.passed_over.load(Ordering::SeqCst)
    }

    /// The table has no unfinished job of the queue; `times`: what `times_passed_over` said before.
    pub fn is_empty_after(&self, times: u64) {
        self.passed_over_gone.fetch_max(times, Ordering::SeqCst);
    }

    /// What a transaction announces of the queue can be seen from now on, and `end_announcing` follows the announcement.
    pub fn begin_announcing(&self) {
        self.announcing.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end_announcing(&self) {
        self.announcing.fetch_sub(1, Ordering::SeqCst);
    }

    /// What a transaction changed in the catalogs may be unknown where its jobs can be seen, until `end_changing`.
    pub fn begin_changing(&self) {
        self.changing.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end_changing(&self) {
        self.changing.fetch_sub(1, Ordering::SeqCst);
    }

    /// Asked after jobs were claimed.
    pub fn is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) != 0
    }

    /// Closes the queue for its drop to transactions that have not begun to announce jobs of it. True when some have begun
    /// and may yet commit: the caller looks at the table afterwards.
    pub fn close(&self) -> bool {
        self.closing.store(true, Ordering::SeqCst);
        self.announcing.load(Ordering::SeqCst) != 0
    }

    /// The drop did not commit.
    pub fn reopen(&self) {
        self.closing.store(false, Ordering::SeqCst);
    }

    /// Whether new jobs of the queue may commit. Asked after `begin_announcing`.
    pub fn takes_jobs_of(&self, key: QueueKey) -> bool {
        self.is(key) && !self.closing.load(Ordering::SeqCst)
    }

    /// Some(permits given so far) while no committed job of the queue is ready or held, as far as shared memory shows; two
    /// equal answers: none began in between. None: look at the table.
    pub fn rest(&self) -> Option<u64> {
        let permits = self.permits.load(Ordering::SeqCst);
        // `announcing` before the watermarks: a transaction announces its jobs before it ends `announcing`.
        let rests = self.running.load(Ordering::SeqCst) == 0
            && self.announcing.load(Ordering::SeqCst) == 0
            && !self.may_be_ready()
            && self.times_passed_over() == self.passed_over_gone.load(Ordering::SeqCst);
        // Only an executor with a permit takes watermarks: what was read of them holds if no permit was given meanwhile.
        (rests && self.permits.load(Ordering::SeqCst) == permits).then_some(permits)
    }

    /// Gives back a permit of this queue; true when none was left, so that somebody may have gone
    /// without. A slot that has another queue by now is left alone.
    pub fn return_permit(&self, key: QueueKey) -> bool {
        if !self.is(key) {
            return false;
        }
        let before = self
            .running
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |running| {
                running.checked_sub(1)
            });
        // Ready jobs of a queue that may not run bring no executor that would tell of the drain later.
        if before == Ok(1) && !(self.may_be_ready() && self.standing().is_open()) {
            self.tell_drain();
        }
        let limit = self.concurrency.load(Ordering::SeqCst);
        limit != 0 && before.is_ok_and(|running| running >= limit)
    }

    /// Whether some priority may have ready jobs.
    pub fn may_be_ready(&self) -> bool {
        self.low
            .iter()
            .any(|low| low.load(Ordering::SeqCst) != NOTHING)
    }

    /// For another queue. Every field is named, because what the slot's last queue left here would be believed.
    fn start(&self, facts: &QueueFacts) {
        let Self {
            key: _,
            kept_for: _,
            epoch,
            // By `apply`.
            role: _,
            owner: _,
            concurrency: _,
            standing: _,
            // Looked at before it is believed.
            database_at: _,
            running,
            // These grow only: who compares two looks must not meet the first again.
            permits: _,
            drains: _,
            // Transactions that end now take their own back.
            announcing: _,
            changing: _,
            closing,
            passed_over,
            passed_over_gone,
            single_until,
            // By `release`.
            held_until: _,
            failures: _,
            start_retry_at,
            mean_ns,
            announced,
            low,
            finished: _,
            drained: _,
        } = self;
        epoch.store(facts.epoch, Ordering::Relaxed);
        running.store(0, Ordering::Relaxed);
        for count in [passed_over, passed_over_gone, mean_ns] {
            count.store(0, Ordering::Relaxed);
        }
        for time in [single_until, start_retry_at] {
            time.store(0, Ordering::Relaxed);
        }
        for flag in [closing, announced] {
            flag.store(false, Ordering::Relaxed);
        }
        self.release();
        // Nothing is known yet of what is in the table: look from the first position.
        for low in low {
            low.store(0, Ordering::SeqCst);
        }
        self.apply(facts);
    }
}

impl Shared {
    /// The slots where a key may be, in the order in which it is looked for.
    fn places_for(&self, key: QueueKey) -> impl Iterator<Item = (usize, &QueueSlot)> {
        let queues = self.queues();
        // Fibonacci hashing: neighbouring numbers land far apart.
        let hash = key.packed().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let home = (hash >> 32) as usize % queues.len();
        let (before, after) = queues.split_at(home);
        (home..queues.len())
            .zip(after)
            .chain(before.iter().enumerate())
    }

    /// The slot of a queue, if it has one.
    pub fn find_queue(&self, key: QueueKey) -> Option<usize> {
        for (index, slot) in self.places_for(key) {
            match slot.key.load(Ordering::Acquire) {
                NEVER => return None,
                // Only its statistics are kept here: the queue has no slot yet since the server started.
                FREED if slot.kept_for.load(Ordering::Relaxed) == key.packed() => return None,
                packed if packed == key.packed() => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// A free slot for a queue that has none: the one with its statistics, or the first with nobody's.
    fn free_place(&self, key: QueueKey) -> Option<usize> {
        let (mut of_nobody, mut of_another) = (None, None);
        for (index, slot) in self.places_for(key) {
            match (
                slot.key.load(Ordering::Relaxed),
                slot.kept_for.load(Ordering::Relaxed),
            ) {
                (NEVER, _) => return of_nobody.or(Some(index)),
                (FREED, kept_for) if kept_for == key.packed() => return Some(index),
                (FREED, 0) => of_nobody = of_nobody.or(Some(index)),
                (FREED, _) => of_another = of_another.or(Some(index)),
                _ => {}
            }
        }
        of_nobody.or(of_another)
    }

    /// Keeps a slot for the statistics that a queue had before the server's restart; while no other process runs.
    pub(in crate::shared) fn keep_place(&self, key: QueueKey, epoch: u32) -> Option<usize> {
        let is_new = |(_, slot): &(usize, &QueueSlot)| slot.key.load(Ordering::Relaxed) == NEVER;
        let (index, slot) = self.places_for(key).find(is_new)?;
        slot.init();
        slot.epoch.store(epoch, Ordering::Relaxed);
        slot.kept_for.store(key.packed(), Ordering::Relaxed);
        slot.key.store(FREED, Ordering::Relaxed);
        Some(index)
    }

    /// Forgets statistics kept for queues of a database that have no slot: its queues all have slots, or are gone with it.
    pub fn forget_kept_of(&self, database: u32) {
        let is_of = |slot: &QueueSlot| {
            let kept_for = slot.kept_for.load(Ordering::Relaxed);
            kept_for != 0 && QueueKey::unpacked(kept_for).database == database
        };
        for slot in self.queues() {
            if is_of(slot) {
                self.slots.with(|| {
                    if is_of(slot) {
                        slot.kept_for.store(0, Ordering::Relaxed);
                    }
                });
            }
        }
    }

    /// The slot of a queue, made if need be; None when all are taken.
    pub fn ensure_queue(&self, facts: &QueueFacts) -> Option<usize> {
        if let Some(index) = self.find_queue(facts.key) {
            if self.queues()[index].epoch.load(Ordering::Acquire) == facts.epoch {
                return Some(index);
            }
        }
        let index = self.slots.with(|| {
            if let Some(index) = self.find_queue(facts.key) {
                let slot = &self.queues()[index];
                if slot.epoch.load(Ordering::Acquire) != facts.epoch {
                    self.statistics_of(index).reset();
                    slot.start(facts);
                }
                return Some(index);
            }
            let Some(index) = self.free_place(facts.key) else {
                self.placeless.store(true, Ordering::SeqCst);
                return None;
            };
            let slot = &self.queues()[index];
            if slot.key.load(Ordering::Relaxed) == NEVER {
                slot.init();
            } else if slot.kept_for.swap(0, Ordering::Relaxed) != facts.key.packed()
                || slot.epoch.load(Ordering::Relaxed) != facts.epoch
            {
                self.statistics_of(index).reset();
            }
            slot.start(facts);
            slot.key.store(facts.key.packed(), Ordering::Release);
            self.queues_taken.fetch_add(1, Ordering::SeqCst);
            Some(index)
        })?;
        self.set_ready(index);
        if let Some(place) = self.find_database(facts.key.database) {
            let highest = &place.highest_queue;
            highest.fetch_max(facts.key.queue_id.into(), Ordering::SeqCst);
        }
        Some(index)
    }

    /// How many queues of a role have a slot, in all databases.
    pub fn queues_of(&self, owner: u32) -> i64 {
        let is_its =
            |slot: &&QueueSlot| slot.key().is_some() && slot.owner.load(Ordering::SeqCst) == owner;
        self.queues().iter().filter(is_its).count() as i64
    }

    /// Gives up the slot of a dropped queue.
    pub fn free_queue(&self, key: QueueKey) {
        let is_wanted = self.slots.with(|| {
            let Some(index) = self.find_queue(key) else {
                return false;
            };
            let slot = &self.queues()[index];
            slot.set_standing(Standing::DROPPED);
            slot.key.store(FREED, Ordering::Release);
            self.queues_taken.fetch_sub(1, Ordering::SeqCst);
            self.placeless.swap(false, Ordering::SeqCst)
        });
        if is_wanted {
            self.tell_of_place();
        }
    }

    /// A place is free, and some queue found none: schedulers and sessions read their queues again, and look for places.
    #[cold]
    fn tell_of_place(&self) {
        for database in &self.databases {
            if database.oid() != 0 && database.presence() == Presence::Present {
                database.definitions.fetch_add(1, Ordering::SeqCst);
                self.announce_due(database, 0);
            }
        }
    }

    /// The queues of a database that have a slot and are committed. Of those whose row a later snapshot does not show, the
    /// row is gone: COMMIT PREPARED, which does not know what was prepared, cannot have given up their slots.
    pub fn born_queues_of(&self, database: u32) -> Vec<QueueKey> {
        let born = self.queues().iter().filter_map(|slot| {
            // The key again: the slot may have been given to a queue that is not born yet.
            let key = slot.key().filter(|key| key.database == database)?;
            let is_born = !slot.standing().has(Standing::UNBORN);
            (is_born && slot.is(key)).then_some(key)
        });
        born.collect()
    }

    /// Gives up all slots of a database: its extension or itself is gone.
    pub fn free_queues_of(&self, database: u32) {
        self.free_queues_but(database, |_| false);
        self.forget_kept_of(database);
    }

    /// All but those of some queues.
    pub fn free_queues_but(&self, database: u32, stays: impl Fn(QueueKey) -> bool) {
        let keys = self.queues().iter().filter_map(QueueSlot::key);
        for key in keys.filter(|key| key.database == database && !stays(*key)) {
            self.free_queue(key);
        }
    }
}
