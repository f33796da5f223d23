//! Whether a batch ends after a job, and why.

use super::BatchPlan;

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
