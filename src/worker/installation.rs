//! The extension coming to and leaving a database.

use std::sync::atomic::Ordering;

use crate::errors::{Error, SqlState};
use crate::pg::{database, ereport, identity, transaction};
use crate::shared::database::{Database, Presence};
use crate::shared::{self, pending};
use crate::sql_function;

// Called by the install script: the workers learn of this database when it commits.
sql_function!(pushy_extension_created_v1, |_call| {
    match shared::get() {
        Some(shared) => {
            if let Some(place) = shared.ensure_database(database::current()) {
                // Its sequences are new.
                place.highest_position.store(0, Ordering::SeqCst);
            }
            pending::presence(Presence::Present);
        }
        None => ereport::warning(
            &Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "pushy is not preloaded: jobs can be enqueued, but none will run",
            )
            .hint(
                "Add shared_preload_libraries = 'pushy' to postgresql.conf and restart the server.",
            ),
        ),
    }
    crate::errors::Result::Ok(())
});

/// Looks whether the extension is still there, in a worker whose statements failed.
pub fn forget_if_gone(place: &Database) {
    let gone = transaction::run(|| Ok(identity::extension_oid().is_none()));
    if matches!(gone, Ok(true)) {
        place.set_presence(Presence::Absent);
        if let Some(shared) = shared::get() {
            shared.free_queues_of(database::current());
        }
        place
            .definitions
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}
