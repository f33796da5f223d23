//! What is done at a time: jobs that become due, windows of history that are over.

mod due_jobs;
mod leases_due;
mod read_queues;
pub mod retention;
pub mod scheduler;
mod sweep;
pub mod timers;
