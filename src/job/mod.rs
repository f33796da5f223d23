//! Jobs: from enqueue to the end of the last attempt, and what is published of them.

pub mod cancel;
pub mod enqueue;
mod job_retry;
pub mod lease;
pub mod moves;
mod run;
pub mod running;
mod shown;
mod stored;
pub mod trace;
mod unique_key;
pub mod wait;
mod work_right;

pub use run::{call, claimed, current, log, words};
pub use stored::{checkpoint, history, live, position, promise, purge, rotation, tables};
use wait::unfinished;

use crate::queue::dependents::Jobs;

/// Jobs, as queues have them.
pub const OF_QUEUES: Jobs = Jobs {
    is_running_of: current::is_of,
    delete_with_queue: moves::discard::delete_with_queue,
    find_enqueuers: moves::adopt::find_enqueuers,
    announce_all: moves::adopt::announce_all,
    adopted: moves::adopt::adopted,
    count_rest: moves::adopt::count_rest,
    drop_rest: moves::adopt::drop_rest,
};
