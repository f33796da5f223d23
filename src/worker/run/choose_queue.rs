//! Which of its queues an executor looks into next: those that may have work, by their bits in shared memory, so
//! that thousands of others cost nothing.

use crate::errors::Result;
use pushy_core::capacity::ExecutorKey;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::pg::transaction;
use crate::pg::{clock, identity};
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::executor::ExecutorSlot;
use crate::shared::queue_slot::QueueKey;
use crate::worker::executor::Executor;
use crate::worker::work::Work;
use pushy_core::gate::{Asker, Closed};

/// One batch in so many is of the next queue in order that may have work; the others are of queues for which a commit
/// has announced jobs.
const IN_ORDER_EVERY: u32 = 4;

impl Executor {
    /// Forgets what it knows of queues after a change of definitions: each is read when it has work, for there may
    /// be thousands.
    pub(in crate::worker) fn refresh_definitions(&mut self) -> Result<()> {
        let generation = self.database_slot.definitions.load(Ordering::SeqCst);
        if self.generation == Some(generation) {
            return Ok(());
        }
        let is_here = transaction::run(|| Ok(identity::extension_oid().is_some()))?;
        self.queues.clear();
        let slots = 0..self.shared.queues().len();
        self.has_queues = is_here
            && slots
                .into_iter()
                .any(|slot| self.shared.is_of(self.slot, slot));
        self.generation = Some(generation);
        Ok(())
    }

    /// Reads the queue in a slot, unless that is known.
    pub(in crate::worker) fn read_queue(&mut self, slot: usize, key: QueueKey) -> Result<()> {
        if self.queues.contains_key(&slot) {
            return Ok(());
        }
        let role = identity::session_user();
        let found =
            transaction::run(|| identity::as_owner(|| definition::find_by_id(key.queue_id)))?;
        let fits = |queue: &QueueDefinition| queue.run_as == role && queue.standing().is_open();
        let work = found.filter(fits).map(|queue| Work::new(queue, slot));
        self.queues.insert(slot, work);
        Ok(())
    }

    /// Whether any of our queues may have work that we may do.
    pub(in crate::worker) fn has_work(&self) -> bool {
        self.workable().next().is_some()
    }

    /// Slots of our queues that may have work that we may do, in the order of their turns.
    fn workable(&self) -> impl Iterator<Item = usize> + '_ {
        let workable = self.shared.workable_by(self.slot, self.next);
        workable.filter(|slot| !matches!(self.queues.get(slot), Some(None)))
    }

    /// How long until a queue of ours that is ready and held may be tried again.
    pub(in crate::worker) fn held_for(&self) -> Option<Duration> {
        let now = clock::now().0;
        let ready = self.shared.ready_from(0);
        ready
            .filter(|slot| self.shared.is_of(self.slot, *slot))
            .filter_map(|slot| match self.shared.gate(slot, now, Asker::Executor) {
                Err(Closed::SuspendedUntil(until)) => Some(until),
                _ => None,
            })
            .map(|until| Duration::from_micros((until - now) as u64))
            .min()
    }

    /// Waits a moment for an executor that is in the middle of a claim of one of our queues, and answers whether there is
    /// work then. The other has the watermark until it knows how far it came, some ten microseconds. To sleep instead, and be
    /// woken for what it leaves, takes longer: two executors of a queue with `batch => false` slept half of the time each
    /// (22,000 jobs/s, one alone 19,000).
    pub(in crate::worker) fn left_by_claims(&self) -> bool {
        const MOST: Duration = Duration::from_micros(50);
        let ExecutorKey { database, role } = self.me.executor_key();
        let is_claiming = |executor: &ExecutorSlot| {
            executor.claiming.load(Ordering::SeqCst) && executor.serves(database, role)
        };
        let since = Instant::now();
        // Bounded: by MOST.
        while self.shared.executors.iter().any(is_claiming) && since.elapsed() < MOST {
            // The other may have been running on this core.
            std::thread::yield_now();
            if self.has_work() {
                return true;
            }
        }
        self.has_work()
    }

    /// The slot of the queue that is next.
    pub(in crate::worker) fn choose(&mut self) -> Option<usize> {
        self.batches = self.batches.wrapping_add(1);
        let next = self.workable().next()?;
        if self.batches.is_multiple_of(IN_ORDER_EVERY) {
            return Some(next);
        }
        let is_announced =
            |slot: &usize| self.shared.queues()[*slot].announced.load(Ordering::SeqCst);
        Some(self.workable().find(is_announced).unwrap_or(next))
    }
}
