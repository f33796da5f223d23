//! Who may cancel a job or have it run again: whoever has `work` on its queue.

use super::live;
use crate::errors::{Error, Result};
use crate::pg::identity;
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::privilege::{self, Privilege};

/// The queue of a job, if the caller has `work` on it; a caller without any privilege on it does not learn that there is such a
/// job. A job of a dropped queue has no owner any more: only the scheduler may touch it.
pub fn queue_for_work(job: i64, queue_id: i32) -> Result<QueueDefinition> {
    let caller = identity::current_user();
    let (queue, grants) = identity::as_owner(|| {
        let queue = definition::find_by_id(queue_id)?.ok_or_else(|| Error::no_such_job(job))?;
        let grants = privilege::grants(queue_id)?;
        Ok((queue, grants))
    })?;
    privilege::require_for_job(job, &queue, &grants, caller, Privilege::Work)?;
    Ok(queue)
}

/// Refuses a job that is not there, but where the running statement saw it when it began: then it has ended since, and nothing of it
/// is kept. Whoever cancels or retries all that a query finds is not failed by that.
#[cold]
pub fn require_seen(id: i64) -> Result<()> {
    let seen = identity::as_owner(|| Ok(live::queue_when_seen(id)))?;
    let queue_id = seen.ok_or_else(|| Error::no_such_job(id))?;
    queue_for_work(id, queue_id).map(|_| ())
}
