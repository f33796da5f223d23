//! The attempt of a lease that nobody has answered is charged.

use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job::Lease;
use crate::job::moves::lease;
use crate::job::moves::retry_or_discard::Attempt;
use crate::pg::clock;
use crate::queue::definition::QueueDefinition;

/// Why an attempt is charged that nobody has said to have failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its time was over.
    Expired,
    /// The session ended that it was bound to.
    SessionEnded,
    /// Its worker has asked for it again and again, and may die of it.
    AskedAgain,
}

impl Why {
    fn hint(self) -> &'static str {
        match self {
            Why::Expired | Why::AskedAgain => "Let workers extend their leases with pushy.job_extend while they work, or give the queue a longer lease.",
            Why::SessionEnded => "Let workers release what they hold before they leave, or claim for a time instead of lease => '0'.",
        }
    }
}

/// Charges the attempt of a lease that nobody has answered.
pub fn charge(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    lease: &Lease,
    why: Why,
) -> Result<()> {
    let worker = match &lease.worker {
        Some(worker) => format!("worker \"{worker}\""),
        None => "a worker".to_owned(),
    };
    let message = match why {
        Why::Expired => format!("the lease of {worker} was over before it said how the job ended"),
        Why::SessionEnded => {
            format!("the session of {worker} ended before it said how the job ended")
        }
        Why::AskedAgain => {
            format!("{worker} has asked for the job again and again, and has not said how it ended")
        }
    };
    let error = Error::new(SqlState::CONNECTION_FAILURE, message).hint(why.hint());
    lease::fail(
        queue,
        slot,
        job,
        lease,
        &Attempt {
            started_at: Some(lease.leased_at),
            ended_at: clock::now(),
            error: &error,
            next: None,
        },
    )?;
    Ok(())
}
