//! The background workers: a launcher for the cluster, a scheduler per database on demand, executors per
//! (database, role). (Relays are in `crate::relay`.)

pub mod batch;
pub mod blame;
pub mod cancels;
pub mod executor;
mod help;
pub mod installation;
pub mod launcher;
pub mod quiesce;
pub mod recorder;
pub mod results;
pub mod retention;
pub mod run_batch;
pub mod run_job;
pub mod scheduler;
pub mod servant;
pub mod solitude;
pub mod timers;
mod turns;
pub mod verdict;
mod view;

/// Registers the launcher; while preloading.
pub fn init() {
    launcher::register();
    quiesce::init();
}
