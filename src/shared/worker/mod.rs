//! What is shared of databases and the workers in them.

pub mod database;
pub mod database_worker;
mod databases;
pub mod executor;
pub mod executor_batch;
mod executors;
mod hold;
mod presence;
mod progress;
