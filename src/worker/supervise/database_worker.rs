//! How a worker that a database has one of comes and goes.

use std::cell::Cell;

use crate::pg::per_process::PerProcess;
use crate::pg::{clock, shmem, signals, worker};
use crate::shared::database::Database;
use crate::shared::database_worker::{Servant, Ticket};
use crate::shared::{self, Shared};

/// As whose servant this process has entered itself.
static SERVED: PerProcess<Cell<Option<Ticket>>> = PerProcess::new(Cell::new(None));

/// Connects this process to the database as its scheduler or relay; None when it is not to be. `arg`: its ticket. `leave` runs
/// at exit and calls `go`.
pub fn come(
    arg: usize,
    servant: fn(&Database) -> &Servant,
    leave: fn(),
) -> Option<&'static Database> {
    let ticket = Ticket::of_arg(arg);
    let place = shared::expect().find_database(ticket.database)?;
    let servant = servant(place);
    if !servant.enter(ticket, worker::my_pid(), clock::now().0) {
        return None;
    }
    SERVED.set(Some(ticket));
    shmem::at_exit(leave);
    signals::init_worker();
    if place.is_quiesced() {
        servant.has_come(ticket);
        return None;
    }
    worker::connect(ticket.database, None);
    // Not before: a worker that cannot connect counts as one that failed to start.
    servant.has_come(ticket);
    Some(place)
}

/// At exit: `last` is what it has to say of its work.
pub fn go(servant: fn(&Database) -> &Servant, last: impl FnOnce(&'static Shared, &Database)) {
    let (Some(shared), Some(ticket)) = (shared::get(), SERVED.take()) else {
        return;
    };
    if let Some(place) = shared.find_database(ticket.database) {
        last(shared, place);
        servant(place).leave(ticket, clock::now().0);
        place.worker_left.broadcast();
    }
    shared.call_launcher();
}
