//! Numbers of jobs, queues, watches and subscriptions, of which no two at a time have the same: counted upwards in shared memory, and kept in
//! a sequence for the next life of the server. What is declared has an int, so its numbers begin again at 1 after the last one, and
//! those that something holds are passed over.
//!
//! Not drawn by nextval(), for two reasons. It makes its sequence the session's last one, so that lastval() after a write of a
//! watched table would be of a sequence that is not the caller's. And a role with pg_write_all_data may set any sequence, which has
//! no trigger to keep it out: a number that comes again would be that of somebody's job, queue or watch. A restore sets them too.

mod begin;
mod counted;
mod draw;
mod follow;
mod sequences;

pub use counted::{Numbers, NEVER};
pub use draw::{highest_in, Numbered};
pub use sequences::{forget_sequences, number_on, reset, JOBS, QUEUES, SUBSCRIPTIONS, WATCHES};

use super::database::DatabaseSlot;
use crate::pg::database;
use crate::pg::per_process::PerProcess;
use crate::shared;

static HERE: PerProcess<std::cell::Cell<Option<&'static DatabaseSlot>>> =
    PerProcess::new(std::cell::Cell::new(None));

/// This database's slot.
pub fn here() -> Option<&'static DatabaseSlot> {
    let oid = database::current();
    if let Some(slot) = HERE.get().filter(|slot| slot.oid() == oid) {
        return Some(slot);
    }
    let slot = shared::get()?.ensure_database(oid);
    HERE.set(slot);
    slot
}
