//! What is counted of a queue, since the server last crashed or was stopped at once (see `shared::counters_file`).

use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::histogram::{self, BUCKETS};

use crate::pg::clock;

/// Counters; each only grows.
#[repr(C, align(64))]
pub struct Statistics {
    pub enqueued: AtomicU64,
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub retried: AtomicU64,
    pub discarded: AtomicU64,
    pub cancelled: AtomicU64,
    /// Attempts that were cut short and not charged.
    pub given_back: AtomicU64,
    /// Attempts whose handlers put their jobs off.
    pub snoozed: AtomicU64,
    /// Finished jobs that were made to run again.
    pub run_again: AtomicU64,
    /// Times that the queue was parked.
    pub parked: AtomicU64,
    pub batches: AtomicU64,
    /// Sum of run times in µs.
    pub run_us: AtomicU64,
    /// Jobs by time from due to start, and by run time; buckets of pushy_core::histogram.
    pub wait: Histogram,
    pub run: Histogram,
    /// Jobs finished in each of the last sixty seconds, with the second they belong to.
    pub per_second: [AtomicU64; RATE_SECONDS],
}

/// What a transaction adds to the counters of a queue.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueCounts {
    pub completed: u64,
    pub failed: u64,
    pub retried: u64,
    pub discarded: u64,
    pub cancelled: u64,
    pub given_back: u64,
    pub snoozed: u64,
    pub run_again: u64,
    pub parked: u64,
}

impl QueueCounts {
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.retried += other.retried;
        self.discarded += other.discarded;
        self.cancelled += other.cancelled;
        self.given_back += other.given_back;
        self.snoozed += other.snoozed;
        self.run_again += other.run_again;
        self.parked += other.parked;
    }

    /// Jobs that have finished.
    pub fn finished(&self) -> u64 {
        self.completed + self.discarded + self.cancelled
    }
}

/// Counters of a queue.
pub(in crate::shared) const COUNTERS: usize = 12 + 2 * BUCKETS;

/// Seconds that a rate looks back.
pub const RATE_SECONDS: usize = 64;

#[repr(transparent)]
pub struct Histogram(pub [AtomicU64; BUCKETS]);

impl Histogram {
    pub fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.0[bucket].load(Ordering::Relaxed))
    }
}

impl Statistics {
    /// What grows as long as the queue is there, in an order that a file may rely on. (The rate does not.)
    pub(in crate::shared) fn counters(&self) -> [&AtomicU64; COUNTERS] {
        let plain = [
            &self.enqueued,
            &self.completed,
            &self.failed,
            &self.retried,
            &self.discarded,
            &self.cancelled,
            &self.given_back,
            &self.snoozed,
            &self.run_again,
            &self.parked,
            &self.batches,
            &self.run_us,
        ];
        std::array::from_fn(|index| match index.checked_sub(plain.len()) {
            None => plain[index],
            Some(bucket) if bucket < BUCKETS => &self.wait.0[bucket],
            Some(bucket) => &self.run.0[bucket - BUCKETS],
        })
    }

    /// Those that are not zero, by index.
    pub(in crate::shared) fn counted(&self) -> Vec<(usize, u64)> {
        let values = self
            .counters()
            .map(|counter| counter.load(Ordering::Relaxed));
        let is_counted = |(_, value): &(usize, u64)| *value > 0;
        values.into_iter().enumerate().filter(is_counted).collect()
    }

    pub(in crate::shared) fn reset(&self) {
        for counter in self.counters().into_iter().chain(&self.per_second) {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// How long a completed job has waited and run (µs).
    pub fn count_times(&self, wait: u64, run: u64) {
        self.wait.0[histogram::bucket(wait)].fetch_add(1, Ordering::Relaxed);
        self.run.0[histogram::bucket(run)].fetch_add(1, Ordering::Relaxed);
        self.run_us.fetch_add(run, Ordering::Relaxed);
    }

    pub fn count(&self, tally: &QueueCounts) {
        for (counter, value) in [
            (&self.completed, tally.completed),
            (&self.failed, tally.failed),
            (&self.retried, tally.retried),
            (&self.discarded, tally.discarded),
            (&self.cancelled, tally.cancelled),
            (&self.given_back, tally.given_back),
            (&self.snoozed, tally.snoozed),
            (&self.run_again, tally.run_again),
            (&self.parked, tally.parked),
        ] {
            if value > 0 {
                counter.fetch_add(value, Ordering::Relaxed);
            }
        }
        if tally.finished() > 0 {
            let second = clock::now().0 as u64 / 1_000_000;
            self.count_finished(second, tally.finished());
        }
    }

    /// Counts jobs finished at `second` (since 2000) for the rate. The second stands in the upper
    /// half of the word: a word of another second is started anew.
    pub fn count_finished(&self, second: u64, jobs: u64) {
        let cell = &self.per_second[second as usize % RATE_SECONDS];
        let _ = cell.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(if word >> 32 == second & 0xffff_ffff {
                word + jobs
            } else {
                ((second & 0xffff_ffff) << 32) | jobs
            })
        });
    }

    /// Jobs finished a second, over the last `window` whole seconds before `second`.
    pub fn rate(&self, second: u64, window: u64) -> f64 {
        let finished: u64 = (1..=window)
            .map(|back| second.saturating_sub(back))
            .map(|then| {
                let word = self.per_second[then as usize % RATE_SECONDS].load(Ordering::Relaxed);
                if word >> 32 == then & 0xffff_ffff {
                    word & 0xffff_ffff
                } else {
                    0
                }
            })
            .sum();
        finished as f64 / window as f64
    }
}
