//! Queues and jobs: the contract between those who enqueue and those who run.

pub mod cache;
pub mod definition;
pub mod fitness;
pub mod privilege;
