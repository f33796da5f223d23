//! Queues and jobs: the contract between those who enqueue and those who run.

pub mod cache;
pub mod cancel;
pub mod claim;
pub mod control;
pub mod current;
pub mod definition;
pub mod enqueue;
pub mod failure;
pub mod finish;
pub mod fitness;
pub mod job;
pub mod live;
pub mod position;
pub mod privilege;
pub mod progress;
pub mod retry;
pub mod wait;
