//! The extension coming to and leaving a database.

use std::sync::atomic::Ordering;

use pushy_core::version::Fit;

use crate::errors::{Error, Result, SqlState};
use crate::installation::in_the_way;
use crate::pg::{database, ereport, identity, script, table_lock, transaction};
use crate::shared::cancels::Promise;
use crate::shared::database::{DatabaseSlot, Look, Presence, NEVER};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, numbers, pending, Shared};
use crate::{row, sql_function};

// The first call of each script, so that none runs half with a library that it was not made for. The workers of the database have left,
// and look at it anew when this commits.
sql_function!(pushy_script_begins_v1, |_call| {
    if script::stands() == Fit::LibraryIsOlder {
        return Err(script::refused(Fit::LibraryIsOlder));
    }
    table_lock::say_who_has_prepared()?;
    in_the_way::require_nothing()?;
    identity::send_script_changed();
    if shared::get().is_some_and(|shared| shared.ensure_database(database::current()).is_some()) {
        pending::presence(Presence::Unknown);
    }
    Ok(())
});

sql_function!(pushy_version_v1, |call| {
    let fit = script::stands();
    let fix = script::way_out(fit).map(str::to_owned);
    let library = script::library().to_owned();
    Result::Ok(call.answer_row(row![library, script::installed(), fit == Fit::Works, fix]))
});

// Called by the install script: the workers learn of this database when it commits.
sql_function!(pushy_extension_created_v1, |_call| {
    match shared::get() {
        Some(shared) => {
            if let Some(database_slot) = shared.ensure_database(database::current()) {
                numbers::number_on(database_slot)?;
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
    Result::Ok(())
});

/// What shared memory has of a database before somebody looks whether the extension is there. What comes later is of an extension
/// that was created meanwhile, and stays.
pub struct Traces {
    look: Look,
    queues: Vec<QueueKey>,
    cancels: Vec<Promise>,
}

impl Traces {
    /// Before the look.
    pub fn begin_look(shared: &Shared, database_slot: &DatabaseSlot) -> Self {
        Self {
            look: database_slot.begin_look(),
            queues: shared.born_queues_of(database_slot.oid()),
            cancels: shared.cancels.of(database_slot.oid()).collect(),
        }
    }

    pub fn look(&self) -> Look {
        self.look
    }

    /// The look has found no extension: forgets it. False where a commit has said something since the look began.
    pub fn forget(self, shared: &Shared, database_slot: &DatabaseSlot) -> bool {
        // In this order, because what a commit says that brings the extension from here on must stay.
        let due = database_slot.due.swap(NEVER, Ordering::SeqCst);
        if !shared.conclude_look(database_slot, self.look, Presence::Absent) {
            shared.announce_due(database_slot, due);
            return false;
        }
        self.queues.iter().for_each(|key| shared.free_queue(*key));
        shared.forget_kept_of(database_slot.oid());
        let cancels = self.cancels.into_iter();
        cancels.for_each(|promise| shared.cancels.carried_out(promise));
        database_slot.definitions.fetch_add(1, Ordering::SeqCst);
        true
    }
}

/// Looks whether the extension is still there, in a worker whose statements failed.
pub fn forget_if_gone(database_slot: &DatabaseSlot) {
    let shared = shared::expect();
    let traces = Traces::begin_look(shared, database_slot);
    let gone = transaction::run(|| Ok(identity::extension_oid().is_none()));
    if matches!(gone, Ok(true)) {
        traces.forget(shared, database_slot);
    }
}
