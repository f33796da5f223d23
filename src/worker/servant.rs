//! How a worker that a database has one of comes and goes.

use std::cell::Cell;

use crate::pg::per_process::PerProcess;
use crate::pg::{clock, shmem, signals, worker};
use crate::shared::database::Database;
use crate::shared::servant::Servant;
use crate::shared::{self, Shared};

/// The database that this process serves.
static SERVED: PerProcess<Cell<u32>> = PerProcess::new(Cell::new(0));

/// Connects this process to the database as its scheduler or relay; None when it is not to be. `leave` runs
/// at exit and calls `go`.
pub fn come(
    database: u32,
    servant: fn(&Database) -> &Servant,
    leave: fn(),
) -> Option<&'static Database> {
    let place = shared::expect().find_database(database)?;
    let servant = servant(place);
    servant.enter(worker::my_pid(), clock::now().0);
    SERVED.set(database);
    shmem::at_exit(leave);
    signals::init_worker();
    if place.is_quiesced() {
        servant.end_starting();
        return None;
    }
    worker::connect(database, None);
    // Not before: a worker that cannot connect counts as one that failed to start.
    servant.end_starting();
    Some(place)
}

/// At exit: `last` is what it has to say of its work.
pub fn go(servant: fn(&Database) -> &Servant, last: impl FnOnce(&'static Shared, &Database)) {
    let Some(shared) = shared::get() else { return };
    if let Some(place) = shared.find_database(SERVED.get()) {
        last(shared, place);
        servant(place).leave();
        place.worker_left.broadcast();
    }
    shared.call_launcher();
}
