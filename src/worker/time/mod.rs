//! What is done at a time: jobs that become due, windows of history that are over.

pub mod retention;
pub mod scheduler;
pub mod timers;
