//! Waiting for a job, or for all of a queue.

mod job;
mod jobs;
mod shown_job;
pub mod unfinished;

use crate::errors::Result;
use crate::pg::{identity, transaction};
use crate::queue::definition::{self, QueueDefinition};

/// The queue's definition as it is now; None when it was dropped.
fn queue_now(queue_id: i32) -> Result<Option<QueueDefinition>> {
    transaction::with_latest_snapshot(|| identity::as_owner(|| definition::find_by_id(queue_id)))
}
