//! How many rows an executor claims, by what the queue's jobs have taken so far.

use super::BatchPlan;

/// How many rows to claim for the next batch of a queue: 1 to [`BatchPlan::MAX_JOBS`].
///
/// - `mean_ns`: the queue's mean time per job in nanoseconds, from [`fold_mean`]; 0 = unknown.
/// - `previous`: the jobs that the last batch ran; 0 before the first one.
/// - `previous_full`: it ran all it claimed, and claimed all it asked for.
///
/// Never more than fit into the budget by the mean; one while the mean is unknown. A full batch doubles:
/// from 1 to 256 in eight batches, so a mean that rests on few jobs is trusted for few. A batch that ended
/// early, or met an emptier queue, is repeated at the size it reached.
pub const fn claim_size(mean_ns: u64, previous: u32, previous_full: bool) -> u32 {
    if mean_ns == 0 {
        return 1;
    }
    let growth = if previous_full { 2 } else { 1 };
    let reached = previous.saturating_mul(growth) as u64;
    let fit = BatchPlan::BUDGET_US * 1_000 / mean_ns;

    let mut size = BatchPlan::MAX_JOBS as u64;
    if reached < size {
        size = reached;
    }
    if fit < size {
        size = fit;
    }
    if size == 0 {
        1
    } else {
        size as u32
    }
}

/// The part of a claim of `size` jobs that an executor takes while another one is idle: what it leaves is for that one.
/// One at least. `mean_ns` as for [`claim_size`].
///
/// A batch saves a commit for each job after the first; a job that waits in a batch beside an idle executor starts later by
/// all those before it. The second costs more as soon as those before it take longer than the idle one needs to wake.
pub const fn share_of_claim(mean_ns: u64, size: u32) -> u32 {
    if mean_ns == 0 {
        return 1;
    }
    let fit = BatchPlan::SHARE_US * 1_000 / mean_ns;
    let mut share = BatchPlan::MAX_SHARED_JOBS as u64;
    if fit < share {
        share = fit;
    }
    if (size as u64) < share {
        share = size as u64;
    }
    if share == 0 {
        1
    } else {
        share as u32
    }
}

/// The weight of a new sample in the mean: 1 / this.
const MEAN_WINDOW: u64 = 8;

/// The mean time per job after a job that took `sample_ns`: an exponentially weighted moving average
/// with weight 1/8, in nanoseconds. 0 means unknown, so the result is at least 1.
///
/// Rounds away from the old mean, so a steady sample is reached exactly. Concurrent executors load, fold
/// and store without a lock: a lost sample costs precision only.
pub const fn fold_mean(old_ns: u64, sample_ns: u64) -> u64 {
    let mean = if old_ns == 0 {
        sample_ns
    } else if sample_ns >= old_ns {
        old_ns + (sample_ns - old_ns).div_ceil(MEAN_WINDOW)
    } else {
        old_ns - (old_ns - sample_ns).div_ceil(MEAN_WINDOW)
    };
    if mean == 0 {
        1
    } else {
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    const MS: u64 = 1_000_000;
    const BUDGET_NS: u64 = BatchPlan::BUDGET_US * 1_000;

    #[test]
    fn a_queue_nobody_measured_starts_with_one_job() {
        assert_eq!(claim_size(0, 0, false), 1);
        assert_eq!(claim_size(0, 200, true), 1);
        assert_eq!(claim_size(MS, 0, true), 1);
    }

    #[test]
    fn full_batches_double_up_to_what_fits_the_budget() {
        let grow = |mean_ns| {
            let mut sizes = vec![claim_size(mean_ns, 0, false)];
            while sizes.len() < 10 {
                sizes.push(claim_size(mean_ns, *sizes.last().unwrap(), true));
            }
            sizes
        };
        assert_eq!(grow(MS), [1, 2, 4, 8, 16, 20, 20, 20, 20, 20]);
        assert_eq!(grow(1_000), [1, 2, 4, 8, 16, 32, 64, 128, 256, 256]);
        assert_eq!(grow(1_000 * MS), [1; 10]);
    }

    #[test]
    fn a_batch_that_was_not_full_does_not_grow() {
        assert_eq!(claim_size(1_000, 7, false), 7);
        assert_eq!(claim_size(5 * MS, 7, false), 4);
    }

    #[test]
    fn any_claim_fits_the_budget_and_at_most_doubles() {
        let mut random = Seeded::new(7);
        for _ in 0..100_000 {
            let mean = random.any_magnitude();
            let previous = random.any_magnitude() as u32;
            let full = random.below(2) == 1;
            let size = claim_size(mean, previous, full);
            let case = (mean, previous, full, size);
            assert!((1..=BatchPlan::MAX_JOBS).contains(&size), "{case:?}");
            assert!(
                size == 1 || u64::from(size).saturating_mul(mean) <= BUDGET_NS,
                "{case:?}"
            );
            assert!(
                u64::from(size) <= (2 * u64::from(previous)).max(1),
                "{case:?}"
            );
            if size > 1 {
                assert!(
                    claim_size(mean.saturating_mul(2), previous, full) <= size,
                    "{case:?}"
                );
            }
        }
    }

    #[test]
    fn a_share_is_what_takes_no_longer_than_another_executor_needs_to_wake() {
        assert_eq!(share_of_claim(0, 256), 1);
        assert_eq!(share_of_claim(MS, 20), 1);
        assert_eq!(share_of_claim(50_000, 20), 2);
        assert_eq!(share_of_claim(1_000, 256), BatchPlan::MAX_SHARED_JOBS);
        let mut random = Seeded::new(10);
        for _ in 0..100_000 {
            let mean = random.any_magnitude();
            let size = random.below(u64::from(BatchPlan::MAX_JOBS)) as u32 + 1;
            let share = share_of_claim(mean, size);
            let worth = u64::from(share).saturating_mul(mean);
            assert!((1..=size).contains(&share), "{mean} {size} {share}");
            assert!(
                share == 1 || worth <= BatchPlan::SHARE_US * 1_000,
                "{mean} {size} {share}"
            );
        }
    }

    #[test]
    fn the_first_sample_is_the_mean_and_a_steady_one_is_reached() {
        assert_eq!(fold_mean(0, 5), 5);
        assert_eq!(fold_mean(0, 0), 1);
        for (start, sample) in [(1, 1_000 * MS), (1_000 * MS, 3), (u64::MAX, 1)] {
            let mean = (0..400).fold(start, |mean, _| fold_mean(mean, sample));
            assert_eq!(mean, sample);
        }
    }

    #[test]
    fn any_mean_lies_between_the_old_one_and_the_sample() {
        let mut random = Seeded::new(8);
        for _ in 0..100_000 {
            let (old, sample) = (random.any_magnitude().max(1), random.any_magnitude());
            let mean = fold_mean(old, sample);
            assert!(mean >= 1, "{old} {sample}");
            assert!(
                mean >= old.min(sample) && mean <= old.max(sample),
                "{old} {sample}"
            );
            assert!(old == sample || mean != old || old == 1, "{old} {sample}");
        }
    }
}
