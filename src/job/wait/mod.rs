//! Waiting for a job, or for all of a queue.

mod job;
pub mod unfinished;
