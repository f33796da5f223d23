//! What is counted of a queue since the server started.

use std::sync::atomic::{AtomicU64, Ordering};

use pushy_core::histogram::BUCKETS;

/// Counters since the server started; each only grows.
#[repr(C, align(64))]
pub struct Statistics {
    pub enqueued: AtomicU64,
    pub completed: AtomicU64,
    pub failed: AtomicU64,
    pub retried: AtomicU64,
    pub discarded: AtomicU64,
    pub cancelled: AtomicU64,
    pub batches: AtomicU64,
    /// Sum of run times in µs.
    pub run_us: AtomicU64,
    /// Jobs by time from due to start, and by run time; buckets of pushy_core::histogram.
    pub wait: Histogram,
    pub run: Histogram,
    /// Jobs finished in each of the last sixty seconds, with the second they belong to.
    pub per_second: [AtomicU64; RATE_SECONDS],
}

/// How attempts ended, outside of an executor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub completed: u64,
    pub failed: u64,
    pub retried: u64,
    pub discarded: u64,
    pub cancelled: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.retried += other.retried;
        self.discarded += other.discarded;
        self.cancelled += other.cancelled;
    }

    /// Jobs that have finished.
    pub fn finished(&self) -> u64 {
        self.completed + self.discarded + self.cancelled
    }
}

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
    pub(super) fn reset(&self) {
        let plain = [
            &self.enqueued,
            &self.completed,
            &self.failed,
            &self.retried,
            &self.discarded,
            &self.cancelled,
            &self.batches,
            &self.run_us,
        ];
        let all = plain
            .into_iter()
            .chain(&self.wait.0)
            .chain(&self.run.0)
            .chain(&self.per_second);
        for counter in all {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub fn count(&self, tally: &Tally) {
        for (counter, value) in [
            (&self.completed, tally.completed),
            (&self.failed, tally.failed),
            (&self.retried, tally.retried),
            (&self.discarded, tally.discarded),
            (&self.cancelled, tally.cancelled),
        ] {
            counter.fetch_add(value, Ordering::Relaxed);
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
