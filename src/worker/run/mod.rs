//! An executor at work: it chooses a queue, claims a batch, runs its jobs, and writes down what came of them.

pub mod activity;
pub mod attribution;
pub mod batch;
pub mod cancels;
pub mod choose_queue;
pub mod executor;
pub mod executor_process;
pub mod held_rows;
pub mod hold;
mod job_at_hand;
pub mod outcomes;
pub mod procedure_outcome;
mod run_batch;
pub mod run_job;
mod run_procedure;
pub mod wake_another;
pub mod work;
