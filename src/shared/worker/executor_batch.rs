//! The open batch of an executor: which jobs it holds, and of which it has accepted the outcome, so that no cancel reaches them.

use std::sync::atomic::Ordering;

use super::executor::{ExecutorSlot, ExecutorState};
use crate::shared::queue_slot::QueueKey;
use crate::shared::Shared;

/// How a batch stands to a job that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldState {
    /// It may yet be cancelled.
    Undecided,
    /// It ends as the batch does.
    Accepted,
}

impl ExecutorSlot {
    pub fn set_batch(&self, queue_id: i32, jobs: impl ExactSizeIterator<Item = i64>) {
        self.batch_number.fetch_add(1, Ordering::SeqCst);
        self.accepted.store(0, Ordering::SeqCst);
        self.queue_id.store(queue_id, Ordering::Relaxed);
        let mut length = 0;
        for (cell, job) in self.batch.iter().zip(jobs) {
            cell.store(job, Ordering::Relaxed);
            length += 1;
        }
        self.batch_length.store(length, Ordering::SeqCst);
    }

    pub fn clear_batch(&self) {
        self.batch_began.store(0, Ordering::SeqCst);
        self.batch_length.store(0, Ordering::SeqCst);
    }

    /// Whether jobs of this queue are in the open batch.
    pub fn has_jobs_of(&self, queue: QueueKey) -> bool {
        self.batch_length.load(Ordering::SeqCst) != 0
            && self.queue_id.load(Ordering::SeqCst) == queue.queue_id
            && self.database.load(Ordering::SeqCst) == queue.database
    }

    /// Publishes that the outcome of the first `jobs` jobs of the batch is accepted. The caller then reads the requests for
    /// cancels (see `cancels`).
    pub fn accept(&self, jobs: usize) {
        self.accepted.store(jobs as u32, Ordering::SeqCst);
    }

    /// Before it lets go of the rows of its batch, by a commit or a rollback: it decides nothing of these jobs any more. From
    /// then on another may have their rows before this executor has closed its batch, so whoever would cancel such a job waits
    /// for its row.
    pub fn let_go(&self) {
        self.accept(self.batch.len());
    }

    /// How the open batch stands to this job; None: it does not hold it.
    pub fn hold_state(&self, job: i64) -> Option<HoldState> {
        loop {
            let batch = self.batch_number.load(Ordering::SeqCst);
            let length = self.batch_length.load(Ordering::SeqCst) as usize;
            let index = self.batch[..length.min(self.batch.len())]
                .iter()
                .position(|cell| cell.load(Ordering::Relaxed) == job);
            let is_accepted = |index: usize| self.accepted.load(Ordering::SeqCst) as usize > index;
            let standing = index.map(|index| {
                if is_accepted(index) {
                    HoldState::Accepted
                } else {
                    HoldState::Undecided
                }
            });
            if self.batch_number.load(Ordering::SeqCst) == batch {
                return standing;
            }
        }
    }

    /// Whether the open batch holds this job, running or waiting for its turn.
    pub fn holds(&self, job: i64) -> bool {
        self.hold_state(job).is_some()
    }
}

impl Shared {
    /// The executors whose open batches hold this job of this database: one has its row, others may have let go of it a moment
    /// ago.
    pub fn executors_holding(
        &self,
        database: u32,
        job: i64,
    ) -> impl Iterator<Item = &ExecutorSlot> {
        self.executors.iter().filter(move |executor| {
            executor.state() != ExecutorState::Free
                && executor.database.load(Ordering::SeqCst) == database
                && executor.holds(job)
        })
    }

    /// How the executors stand to this job of this database that hold it: `Undecided` says one only that has its row.
    pub fn hold_state(&self, database: u32, job: i64) -> Option<HoldState> {
        self.executors_holding(database, job)
            .filter_map(|executor| executor.hold_state(job))
            .max_by_key(|standing| *standing == HoldState::Undecided)
    }
}
