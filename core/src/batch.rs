//! How many jobs one transaction takes: what to claim, and when to stop (docs/design.md).
//!
//! A batch pays one commit and one claim for many short jobs, and must not become long: a batch holds
//! its claims and its snapshot, and its first job's effects wait for its last.

/// The bounds of a batch.
pub struct BatchPlan;

impl BatchPlan {
    /// A batch commits after the first job that ends this long after its start, in microseconds.
    pub const BUDGET_US: u64 = 20_000;
    /// Rows claimed at once, and jobs run in one transaction, at most.
    pub const MAX_JOBS: u32 = 256;
    /// Subtransaction ids in one transaction at which the batch ends. Above 64
    /// (`PGPROC_MAX_CACHED_SUBXIDS`, storage/proc.h) every snapshot in the server goes through pg_subtrans;
    /// the difference is room for the job that passes the mark.
    pub const MAX_SUBXIDS: u32 = 48;
    /// Bytes of arguments at which a claim ends: they are all in memory until the batch is over.
    pub const MAX_ARGS_BYTES: usize = 16 << 20;
    /// Bytes of arguments and results at which a batch ends.
    pub const MAX_MEMORY: usize = 64 << 20;
    /// While another executor is idle, a claim is worth this much work at most, in microseconds: about as long as
    /// that executor takes to wake.
    pub const SHARE_US: u64 = 100;
    /// ... and has this many jobs at most, because one of them may turn out to be long.
    pub const MAX_SHARED_JOBS: u32 = 8;
    /// A batch that holds jobs it has not begun asks after this long whether somebody is idle, in microseconds.
    pub const ASK_FOR_IDLE_US: u64 = 200;
}

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

/// Why a batch commits now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BatchEnd {
    /// The queue says `batch => false`, or runs single for a while after a failed batch.
    Single,
    /// The job lost to a concurrent transaction; the locks it waited for are best given up.
    ContendedError,
    /// The job used temporary objects, which the next job must not see.
    Temporary,
    /// The job said SET CONSTRAINTS, which lasts as long as the transaction.
    Constraints,
    /// The job has a unique key: while its row is held others of that key come beside it.
    UniqueKey,
    /// One more job could pass the server's cache of subtransaction ids.
    SubxidLimit,
    /// As many jobs as a batch may have.
    JobLimit,
    /// Arguments and results take as much memory as a batch may have.
    Memory,
    /// The time is used up.
    Budget,
}

/// What the executor knows right after a job of a batch, its subtransaction ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct AfterJob<'a> {
    /// The queue's jobs run one to a transaction.
    pub single: bool,
    /// Microseconds since the batch began.
    pub elapsed_us: u64,
    /// Jobs run in this batch.
    pub jobs: u32,
    /// Subtransaction ids that the transaction holds, those of exception blocks in handlers included.
    pub subxids: u32,
    /// Bytes of the arguments and results that the batch keeps.
    pub memory: usize,
    /// The job has a unique key.
    pub had_key: bool,
    /// The transaction accessed the temporary namespace.
    pub used_temporary: bool,
    /// SET CONSTRAINTS has run.
    pub set_constraints: bool,
    /// The SQLSTATE of its failure, five characters; `None` when it succeeded.
    pub failure: Option<&'a str>,
}

/// Whether the batch ends after this job, and the first reason that applies, in the order of [`BatchEnd`].
pub fn ends_batch(after: &AfterJob) -> Option<BatchEnd> {
    let reasons = [
        (after.single, BatchEnd::Single),
        (
            after.failure.is_some_and(is_contention),
            BatchEnd::ContendedError,
        ),
        (after.used_temporary, BatchEnd::Temporary),
        (after.set_constraints, BatchEnd::Constraints),
        (after.had_key, BatchEnd::UniqueKey),
        (
            after.subxids >= BatchPlan::MAX_SUBXIDS,
            BatchEnd::SubxidLimit,
        ),
        (after.jobs >= BatchPlan::MAX_JOBS, BatchEnd::JobLimit),
        (after.memory >= BatchPlan::MAX_MEMORY, BatchEnd::Memory),
        (after.elapsed_us >= BatchPlan::BUDGET_US, BatchEnd::Budget),
    ];
    reasons
        .into_iter()
        .find_map(|(applies, reason)| applies.then_some(reason))
}

/// Whether a failure counts as an attempt. A job that is not the only one of its batch runs under a short
/// lock_timeout: if it hits that (55P03) it is not charged, and comes again as a batch of one, where it may
/// wait: nobody waits behind it then.
pub fn is_charged(sqlstate: &str, only_one: bool) -> bool {
    only_one || sqlstate != LOCK_NOT_AVAILABLE
}

const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Whether `sqlstate` is deadlock_detected, serialization_failure or lock_not_available
/// (errcodes.txt).
fn is_contention(sqlstate: &str) -> bool {
    matches!(sqlstate, "40P01" | "40001" | LOCK_NOT_AVAILABLE)
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

    #[test]
    fn a_batch_of_plain_short_jobs_goes_on() {
        let after = AfterJob {
            elapsed_us: BatchPlan::BUDGET_US - 1,
            jobs: BatchPlan::MAX_JOBS - 1,
            subxids: BatchPlan::MAX_SUBXIDS - 1,
            memory: BatchPlan::MAX_MEMORY - 1,
            ..AfterJob::default()
        };
        assert_eq!(ends_batch(&after), None);
        // A failure of the job's own making concerns nobody else.
        let failed = AfterJob {
            failure: Some("23505"),
            ..after
        };
        assert_eq!(ends_batch(&failed), None);
    }

    #[test]
    fn each_reason_ends_a_batch_by_itself() {
        let none = AfterJob::default();
        let cases = [
            (
                AfterJob {
                    single: true,
                    ..none
                },
                BatchEnd::Single,
            ),
            (
                AfterJob {
                    failure: Some("40P01"),
                    ..none
                },
                BatchEnd::ContendedError,
            ),
            (
                AfterJob {
                    failure: Some("40001"),
                    ..none
                },
                BatchEnd::ContendedError,
            ),
            (
                AfterJob {
                    failure: Some("55P03"),
                    ..none
                },
                BatchEnd::ContendedError,
            ),
            (
                AfterJob {
                    used_temporary: true,
                    ..none
                },
                BatchEnd::Temporary,
            ),
            (
                AfterJob {
                    set_constraints: true,
                    ..none
                },
                BatchEnd::Constraints,
            ),
            (
                AfterJob {
                    had_key: true,
                    ..none
                },
                BatchEnd::UniqueKey,
            ),
            (
                AfterJob {
                    subxids: 48,
                    ..none
                },
                BatchEnd::SubxidLimit,
            ),
            (AfterJob { jobs: 256, ..none }, BatchEnd::JobLimit),
            (
                AfterJob {
                    memory: BatchPlan::MAX_MEMORY,
                    ..none
                },
                BatchEnd::Memory,
            ),
            (
                AfterJob {
                    elapsed_us: 20_000,
                    ..none
                },
                BatchEnd::Budget,
            ),
        ];
        for (after, reason) in cases {
            assert_eq!(ends_batch(&after), Some(reason), "{after:?}");
        }
    }

    #[test]
    fn any_further_reason_never_prolongs_a_batch() {
        let mut random = Seeded::new(9);
        let failures = [None, Some("22012"), Some("40001"), Some("55P03")];
        for _ in 0..20_000 {
            let after = AfterJob {
                single: random.below(8) == 0,
                elapsed_us: random.below(30_000),
                jobs: random.below(300) as u32,
                subxids: random.below(60) as u32,
                memory: random.below(100 << 20) as usize,
                had_key: random.below(8) == 0,
                used_temporary: random.below(8) == 0,
                set_constraints: random.below(8) == 0,
                failure: failures[random.below(4) as usize],
            };
            let later = AfterJob {
                elapsed_us: after.elapsed_us + random.below(5_000),
                jobs: after.jobs + 1,
                subxids: after.subxids + random.below(3) as u32,
                ..after
            };
            assert!(
                ends_batch(&after).is_none() || ends_batch(&later).is_some(),
                "{after:?} {later:?}"
            );
        }
    }

    #[test]
    fn only_a_job_of_several_that_met_a_lock_is_not_charged() {
        assert!(is_charged("55P03", true));
        assert!(!is_charged("55P03", false));
        assert!(is_charged("40P01", false));
        assert!(is_charged("22012", false));
    }
}
