//! The wake protocol (announce, claim, idle): no commit is missed, no process polls.
//!
//! - *announce(p)*: lower the watermark of (queue, priority) to p, **then** set the queue's ready bit,
//!   **then** look for an idle executor and set its latch. At commit for rows made ready; at commit and
//!   abort for row locks released unfinished.
//! - *claim*: clear the ready bit, **then** swap each watermark with NOTHING, **then** take the snapshot.
//!   If as many rows came as were asked for, announce the next position. On any failure after the swap,
//!   announce what was swapped out.
//! - *idle*: publish 'idle', **then** look at the bits once more, then wait on the latch.
//!
//! `core/tests/wake_model/` walks every interleaving of this and of its broken variants.

use std::sync::atomic::Ordering;

use pushy_core::bits;
use pushy_core::capacity::{self, Seen};
use pushy_core::gate::{Asker, Facts};
use pushy_core::standing::Standing;

use crate::pg::clock;
use crate::settings;
use crate::shared::database::{DatabaseSlot, Look, Presence};
use crate::shared::executor::{ExecutorSlot, ExecutorState};
use crate::shared::listened::ListenerCounter;
use crate::shared::queue_slot::{QueueKey, QueueSlot, NOTHING};
use crate::shared::Shared;

/// A worker that was woken claims within so long (µs), or another is woken.
const CLAIM_WITHIN_US: i64 = 1_000_000;

impl Shared {
    pub fn set_ready(&self, index: usize) {
        self.ready_bits()[index / 64].fetch_or(1 << (index % 64), Ordering::SeqCst);
    }

    pub fn clear_ready(&self, index: usize) {
        self.queues()[index]
            .announced
            .store(false, Ordering::SeqCst);
        self.ready_bits()[index / 64].fetch_and(!(1 << (index % 64)), Ordering::SeqCst);
    }

    /// The slots whose ready bit is set: those from `from` on, then those before it.
    pub fn ready_from(&self, from: usize) -> impl Iterator<Item = usize> + '_ {
        bits::members_from(self.ready_bits(), from)
    }

    /// Whether a queue is one of those that an executor serves.
    pub fn is_of(&self, executor: usize, index: usize) -> bool {
        let slot = &self.queues()[index];
        let role = slot.role.load(Ordering::SeqCst);
        slot.key()
            .is_some_and(|key| self.executors[executor].serves(key.database, role))
    }

    /// The slots of queues that an executor serves and that may have work that it may do now: those from `from` on,
    /// then those before it.
    pub fn workable_by(&self, executor: usize, from: usize) -> impl Iterator<Item = usize> + '_ {
        let now = clock::now().0;
        self.ready_from(from).filter(move |index| {
            self.is_of(executor, *index) && self.lets_in(*index, now, Asker::Executor)
        })
    }

    pub fn is_ready(&self, index: usize) -> bool {
        self.ready_bits()[index / 64].load(Ordering::SeqCst) & (1 << (index % 64)) != 0
    }

    /// Says that `position` may be ready. Allocates nothing, raises nothing. A slot that has another
    /// queue by now is left alone: the queue was dropped.
    pub fn announce(&self, index: usize, key: QueueKey, priority: usize, position: u64) {
        let slot = &self.queues()[index];
        if slot.is(key) {
            slot.low[priority].fetch_min(position, Ordering::SeqCst);
            slot.announced.store(true, Ordering::SeqCst);
            self.set_ready(index);
        }
    }

    /// Takes the watermark of a priority; NOTHING when there is nothing to do.
    pub fn take_low(&self, index: usize, priority: usize) -> u64 {
        let low = &self.queues()[index].low[priority];
        // A plain load first: most priorities are empty, and a swap would take the cache line.
        if low.load(Ordering::SeqCst) == NOTHING {
            return NOTHING;
        }
        low.swap(NOTHING, Ordering::SeqCst)
    }

    /// Whether somebody is idle who could work on this queue now.
    pub fn has_idle_for(&self, index: usize, now: i64) -> bool {
        let slot = &self.queues()[index];
        let is_open = || self.lets_in(index, now, Asker::Anybody);
        let Some(key) = slot.key().filter(|_| is_open()) else {
            return false;
        };
        let role = slot.role.load(Ordering::SeqCst);
        let is_idle = |executor: &ExecutorSlot| executor.state() == ExecutorState::Idle;
        self.executors
            .iter()
            .any(|executor| is_idle(executor) && executor.serves(key.database, role))
    }

    /// Wakes one of those who wait to claim jobs of this queue. It may die before it claims: then the scheduler wakes another.
    /// `core/tests/claim_wait_model/` walks every interleaving.
    fn wake_outside(&self, index: usize, key: QueueKey, now: i64) {
        let slot = &self.queues()[index];
        self.tell_of_work(index, key, now);
        if slot.claimable.has_sleepers() && self.lets_in_outside(index, now) {
            self.expect_claim(index, key, now);
            slot.claimable.signal();
        }
    }

    fn tell_of_work(&self, index: usize, key: QueueKey, now: i64) {
        let slot = &self.queues()[index];
        // Before the look for sleepers: who is about to sleep reads it after it is on the list.
        slot.count_signal();
        let has_work = || slot.may_be_ready() && self.lets_in_outside(index, now);
        if self.has_listeners(slot, key) && has_work() {
            self.tell_listeners(slot, key);
        }
    }

    /// A look has found what is ready, and may have been announced before: wakes somebody, unless somebody is awaited who was told.
    pub fn wake_for_found(&self, index: usize) {
        let slot = &self.queues()[index];
        if slot.noted() == 0 || !slot.standing().has(Standing::OUTSIDE) {
            return self.wake_for(index);
        }
        let Some(key) = slot.key() else { return };
        let now = clock::now().0;
        self.tell_of_work(index, key, now);
        // Anew, because who was told may look just now, find nothing, and forget the note; for no later time, because there may be sweeps
        // without end.
        let noted = slot.note_again();
        if noted == 0 {
            return self.wake_for(index);
        }
        if !self.is_ready(index) {
            // Somebody looks just now, or claims: that notes what it finds.
            slot.forget_claimer(noted);
        }
    }

    fn has_listeners(&self, slot: &QueueSlot, key: QueueKey) -> bool {
        let counter = ListenerCounter::of(key.database, slot.channel());
        self.listened.has(counter)
    }

    /// The relay tells LISTENers of an empty queue that has work: once, until a claim has looked.
    fn tell_listeners(&self, slot: &QueueSlot, key: QueueKey) {
        if slot.is_told.swap(true, Ordering::SeqCst) {
            return;
        }
        slot.to_tell.store(true, Ordering::SeqCst);
        if let Some(place) = self.find_database(key.database) {
            place.log.tells_queues.store(true, Ordering::SeqCst);
            self.wake_relay(place);
        }
    }

    /// The queues of a database whose LISTENers are to be told, and whoever takes them tells them.
    pub fn take_queues_to_tell(&self, database: u32) -> Vec<QueueKey> {
        let slots = self.queues().iter();
        slots
            .filter(|slot| slot.to_tell.load(Ordering::SeqCst))
            .filter_map(|slot| {
                slot.key()
                    .filter(|key| key.database == database)
                    .zip(Some(slot))
            })
            .filter(|(_, slot)| slot.to_tell.swap(false, Ordering::SeqCst))
            .map(|(key, _)| key)
            .collect()
    }

    /// They may not have been told: those of all queues are told again that have heard of something.
    pub fn put_back_queues_to_tell(&self, database: &DatabaseSlot) {
        for slot in self.queues() {
            let is_here = || slot.key().is_some_and(|key| key.database == database.oid());
            if slot.is_told.load(Ordering::SeqCst) && is_here() {
                slot.to_tell.store(true, Ordering::SeqCst);
            }
        }
        database.log.tells_queues.store(true, Ordering::SeqCst);
    }

    /// Somebody was told that there is something to claim.
    pub fn expect_claim(&self, index: usize, key: QueueKey, now: i64) {
        self.queues()[index].note_claimer(now);
        if let Some(place) = self.find_database(key.database) {
            self.announce_due(place, now + CLAIM_WITHIN_US);
        }
    }

    /// Wakes another worker outside where the one that was woken has not claimed in time; answers when to look again.
    pub fn wake_another_outside(&self, index: usize) -> Option<i64> {
        let slot = &self.queues()[index];
        let key = slot.key()?;
        let now = clock::now().0;
        let noted = slot.signalled_at.load(Ordering::SeqCst);
        if noted == 0 {
            return None;
        }
        let due = noted + CLAIM_WITHIN_US;
        if now < due {
            return Some(due);
        }
        if !self.is_ready(index) {
            // Somebody looks just now, or claims: that takes back what was noted, or sets the bit again.
            return Some(now + CLAIM_WITHIN_US);
        }
        slot.forget_claimer(noted);
        self.wake_outside(index, key, now);
        let again = slot.signalled_at.load(Ordering::SeqCst);
        (again != 0).then_some(again + CLAIM_WITHIN_US)
    }

    /// Wakes another worker outside in the place of one that was woken, or may have been, and did not look.
    #[cold]
    pub fn hand_on(&self, index: usize, key: QueueKey) {
        let slot = &self.queues()[index];
        if slot.is(key) && slot.standing().has(Standing::OUTSIDE) && self.is_ready(index) {
            self.wake_outside(index, key, clock::now().0);
        }
    }

    /// Workers outside are let into queues again, of a database or of all: wakes one at each that has something, who were told of nothing
    /// meanwhile.
    #[cold]
    fn wake_all_outside(&self, database: Option<u32>) {
        let is_of = |key: QueueKey| database.is_none_or(|database| key.database == database);
        for (index, slot) in self.queues().iter().enumerate() {
            let is_outside = slot.standing().has(Standing::OUTSIDE);
            if is_outside && slot.key().is_some_and(is_of) && self.is_ready(index) {
                self.wake_for(index);
            }
        }
    }

    /// Says whether jobs run at all, as pushy.enabled has it.
    pub fn set_enabled(&self, enabled: bool) {
        if self.closed.swap(!enabled, Ordering::SeqCst) && enabled {
            self.wake_all_outside(None);
        }
    }

    /// Says whether workers come to a database. As far as the launcher knows, who looks again after each change of definitions there.
    pub fn set_served(&self, database: &DatabaseSlot, served: bool) {
        if database.left_out.swap(!served, Ordering::SeqCst) && served {
            self.wake_all_outside(Some(database.oid()));
        }
    }

    /// A transaction that kept workers out of a database has ended. May be called in commit callbacks, as the next.
    pub(in crate::shared) fn end_quiesce(&self, database: &DatabaseSlot) {
        database.end_quiesce();
        if !database.is_quiesced() {
            self.wake_all_outside(Some(database.oid()));
        }
    }

    /// A commit brings the extension to a database, or another script of it, or takes it away.
    pub(in crate::shared) fn announce_presence(&self, database: &DatabaseSlot, presence: Presence) {
        let before = database.presence();
        database.announce_presence(presence);
        self.wake_if_let_in(database, before);
    }

    /// The same of a look; false, and nothing is said, where a commit has said something since it began.
    pub fn conclude_look(&self, database: &DatabaseSlot, look: Look, presence: Presence) -> bool {
        let before = database.presence();
        let concludes = database.conclude_look(look, presence);
        self.wake_if_let_in(database, before);
        concludes
    }

    fn wake_if_let_in(&self, database: &DatabaseSlot, before: Presence) {
        let lets_in = |presence| {
            Facts {
                presence,
                ..Facts::OPEN
            }
            .let_in(0, Asker::Outside)
        };
        if lets_in(database.presence()) && !lets_in(before) {
            self.wake_all_outside(Some(database.oid()));
        }
    }

    /// Wakes somebody who can work on this queue: an idle executor of its role in its database, else the launcher.
    pub fn wake_for(&self, index: usize) {
        let slot = &self.queues()[index];
        let Some(key) = slot.key() else { return };
        let now = clock::now().0;
        if slot.standing().has(Standing::OUTSIDE) {
            return self.wake_outside(index, key, now);
        }
        if !self.lets_in(index, now, Asker::Executor) {
            // The process that makes the queue runnable, or returns the permit, looks again; after a failure the executor
            // that met it, or the launcher, comes back in time.
            return;
        }
        let role = slot.role.load(Ordering::SeqCst);
        let mut seen = Seen::default();
        for executor in &self.executors {
            let state = executor.state();
            if state == ExecutorState::Free {
                continue;
            }
            let is_of_role = executor.role.load(Ordering::SeqCst) == role;
            seen.all += 1;
            seen.of_role += usize::from(is_of_role);
            if !executor.serves(key.database, role) {
                seen.idle_elsewhere |= state == ExecutorState::Idle;
                seen.idle_of_role_elsewhere |= is_of_role && state == ExecutorState::Idle;
                continue;
            }
            if state == ExecutorState::Idle && executor.wake_if_idle() {
                return;
            }
            if state != ExecutorState::Stopping {
                seen.of_pair += 1;
            }
        }
        let has_looked = self.no_capacity_until.load(Ordering::SeqCst) > now;
        let may_start = capacity::may_find_room(&seen, &settings::capacity(), has_looked);
        // The ready bit was set before: a launcher that opens now finds it.
        if may_start && self.lets_in(index, now, Asker::WakeUp) {
            self.call_launcher();
        }
    }
}
