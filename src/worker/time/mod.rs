//! What is done at a time: jobs that become due, windows of history that are over.

mod due_jobs;
mod gateway_settings;
mod inspection;
mod leases_due;
mod left_cancels;
mod orphans;
mod queue_slots;
mod read_queues;
pub mod retention;
pub mod scheduler;
mod sweep;
