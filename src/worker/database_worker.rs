//! How a worker that a database has one of comes and goes.

use std::cell::Cell;

use crate::pg::per_process::PerProcess;
use crate::pg::{clock, shmem, signals, worker};
use crate::shared::database::DatabaseSlot;
use crate::shared::database_worker::{DatabaseWorker, WorkerStart};
use crate::shared::{self, Shared};

/// As which worker this process has entered itself.
static STARTED_AS: PerProcess<Cell<Option<WorkerStart>>> = PerProcess::new(Cell::new(None));

/// Connects this process to the database as its scheduler or relay; None when it is not to be. `arg`: which start it is. `leave` runs
/// at exit and calls `stop`.
pub fn start(
    arg: usize,
    worker: fn(&DatabaseSlot) -> &DatabaseWorker,
    leave: fn(),
) -> Option<&'static DatabaseSlot> {
    let start = WorkerStart::of_arg(arg);
    let database_slot = shared::expect().find_database(start.database)?;
    let worker = worker(database_slot);
    if !worker.enter(start, worker::my_pid(), clock::now().0) {
        return None;
    }
    STARTED_AS.set(Some(start));
    shmem::at_exit(leave);
    signals::init_worker();
    if database_slot.is_quiesced() {
        worker.has_come(start);
        return None;
    }
    worker::connect(start.database, None);
    // Not before: a worker that cannot connect counts as one that failed to start.
    worker.has_come(start);
    Some(database_slot)
}

/// At exit: `last` is what it has to say of its work.
pub fn stop(
    worker: fn(&DatabaseSlot) -> &DatabaseWorker,
    last: impl FnOnce(&'static Shared, &DatabaseSlot),
) {
    let (Some(shared), Some(start)) = (shared::get(), STARTED_AS.take()) else {
        return;
    };
    if let Some(database_slot) = shared.find_database(start.database) {
        last(shared, database_slot);
        worker(database_slot).leave(start, clock::now().0);
        database_slot.worker_left.broadcast();
    }
    shared.call_launcher();
}
