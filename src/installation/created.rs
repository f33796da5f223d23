//! The extension coming to and leaving a database.

use pushy_core::version::Fit;

use crate::errors::{Error, Result, SqlState};
use crate::pg::{database, ereport, identity, script, transaction};
use crate::shared::database::{DatabaseSlot, Presence};
use crate::shared::{self, numbers, pending};
use crate::{row, sql_function};

// Called by the install script: the workers learn of this database when it commits.
// The first call of each script, so that none runs half with a library that it was not made for. The workers of the database have left,
// and look at it anew when this commits.
sql_function!(pushy_script_begins_v1, |_call| {
    if script::stands() == Fit::LibraryIsOlder {
        return Err(script::refused(Fit::LibraryIsOlder));
    }
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

/// Looks whether the extension is still there, in a worker whose statements failed.
pub fn forget_if_gone(database_slot: &DatabaseSlot) {
    let gone = transaction::run(|| Ok(identity::extension_oid().is_none()));
    if matches!(gone, Ok(true)) {
        database_slot.set_presence(Presence::Absent);
        if let Some(shared) = shared::get() {
            shared.free_queues_of(database::current());
        }
        database_slot
            .definitions
            .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    }
}
