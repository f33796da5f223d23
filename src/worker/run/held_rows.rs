//! Ready jobs that a claim has met and that somebody else holds. An executor announces what becomes of its jobs; of anybody else's lock
//! nobody hears, so that these rows are noted to be looked at again.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushy_core::capacity::ExecutorKey;

use crate::shared::executor::ExecutorSlot;
use crate::shared::queue_slot::QueueKey;
use crate::shared::Shared;

/// A row that no executor was known to hold.
struct Unknown {
    priority: usize,
    job: i64,
    position: u64,
}

#[derive(Default)]
pub struct HeldRows {
    unknown: Vec<Unknown>,
}

/// So many of a priority are asked about; one more is noted as it is.
const MOST: usize = 16;

impl HeldRows {
    pub fn are_none(&self) -> bool {
        self.unknown.is_empty()
    }

    #[cold]
    pub fn meet(
        &mut self,
        shared: &Shared,
        database: u32,
        priority: usize,
        job: i64,
        position: i64,
    ) {
        let before = self.unknown.iter().filter(|row| row.priority == priority);
        let is_too_many = before.count() > MOST;
        if !is_too_many && shared.executors_holding(database, job).next().is_none() {
            self.unknown.push(Unknown {
                priority,
                job,
                position: position as u64,
            });
        }
    }

    /// Notes those that are no executor's. The caller has published what it has claimed itself. Another that is in the middle of a
    /// claim has locked rows, and says which when it is done, after some ten microseconds: to note them costs rounds that find nothing.
    #[cold]
    pub fn note(self, shared: &Shared, me: &ExecutorSlot, slot: usize, key: QueueKey) {
        const LONGEST: Duration = Duration::from_micros(50);
        let ExecutorKey { database, role } = me.executor_key();
        let is_claiming = |executor: &ExecutorSlot| {
            executor.claiming.load(Ordering::SeqCst) && executor.serves(database, role)
        };
        let since = Instant::now();
        // Bounded: by LONGEST.
        while shared.executors.iter().any(is_claiming) && since.elapsed() < LONGEST {
            // The other may have been running on this core.
            std::thread::yield_now();
        }
        let is_held = |row: &Unknown| shared.executors_holding(database, row.job).next().is_some();
        // From the first on all of its priority are looked at again.
        for rows in self
            .unknown
            .chunk_by(|row, next| row.priority == next.priority)
        {
            let first = rows.iter().take(MOST).find(|row| !is_held(row));
            if let Some(row) = first.or(rows.get(MOST)) {
                shared.note_held(slot, key, row.priority, row.position);
            }
        }
    }
}
