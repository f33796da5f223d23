//! How many jobs one transaction takes: what to claim, and when to stop (docs/design.md).
//!
//! A batch pays one commit and one claim for many short jobs, and must not become long: a batch holds
//! its claims and its snapshot, and its first job's effects wait for its last.

mod claim_size;
mod end;

pub use claim_size::{claim_size, fold_mean, share_of_claim};
pub use end::{ends_batch, is_charged, AfterJob, BatchEnd};

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
