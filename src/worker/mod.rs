//! The background workers: a launcher for the cluster, a scheduler per database on demand, executors per
//! (database, role). (Relays are in `crate::relay`.)

pub mod database_worker;
pub mod failures_in_row;
pub mod idle_rounds;
mod recover;
mod run;
mod supervise;
mod time;

use recover::{crash_verdict, lost_holds, quarantine, recorder};
use run::{
    activity, attribution, batch, cancels, executor, executor_process, held_rows, hold, outcomes,
    procedure_outcome, run_job, wake_another, work,
};
use supervise::drop_database;
pub use supervise::launcher;
use time::{retention, scheduler};

/// Registers the launcher; while preloading.
pub fn init() {
    launcher::register();
    drop_database::init();
}
