//! DROP DATABASE, and the other statements that need a database empty, or the extension's tables unlocked (RENAME, SET
//! TABLESPACE, use as a template, DROP and ALTER EXTENSION): our workers leave before them, and come back when the transaction
//! ends, if there is still something to come back to. What FINISH PREPARED brings is announced here, too.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::errors::{Error, SqlState};
use crate::pg::utility::{self, Hooks, Statement};
use crate::pg::{database, ereport, identity, session, signals, transaction};
use crate::shared::database::{DatabaseSlot, Presence, NEVER};
use crate::shared::ready_at_end::{Brings, ReadyAtEnd};
use crate::shared::{self, pending, Shared};
use crate::worker::launcher::kinds::KINDS;

static HOOKS: Hooks = Hooks {
    before,
    after,
    skips: utility::skip_none,
};

pub fn init() {
    utility::install(&HOOKS);
}

/// How long to wait for workers to leave; then the statement's own check has the last word.
const PATIENCE: Duration = Duration::from_secs(30);

fn before(statement: &Statement) {
    let Some(shared) = shared::get() else { return };
    match statement {
        Statement::DropDatabase { name }
        | Statement::RenameDatabase { name }
        | Statement::MoveDatabase { name } => {
            if let Some(oid) = database::oid_of(name) {
                // Whoever may not do it gets the server's own error, and the workers stay.
                if database::is_owner(oid, identity::current_user()) {
                    quiesce(shared, oid);
                }
            }
        }
        Statement::CopyDatabase {
            template,
            is_numbered,
        } => {
            if *is_numbered && !identity::is_superuser(identity::current_user()) {
                refuse_number();
            }
            if let Some(oid) = database::oid_of(template) {
                if database::may_copy(oid, identity::current_user()) {
                    quiesce(shared, oid);
                }
            }
        }
        Statement::DropExtension | Statement::AlterExtension => {
            if identity::owns_extension(identity::current_user()) {
                quiesce(shared, database::current());
            }
        }
        Statement::DropOwned { roles } => {
            let owner = identity::extension_owner();
            if identity::owns_extension(identity::current_user())
                && roles.iter().any(|role| identity::find(role) == owner)
            {
                quiesce(shared, database::current());
            }
        }
        Statement::Prepare { name } => pending::prepares(name.to_bytes()),
        Statement::FinishPrepared { .. }
        | Statement::ChangeAccess
        | Statement::SetOfDatabase { .. }
        | Statement::SetConstraints
        | Statement::AlterColumns { .. }
        | Statement::CreateTrigger { .. }
        | Statement::SwitchTriggers { .. }
        | Statement::RenameColumn { .. }
        | Statement::Listen { .. }
        | Statement::RenameSchema { .. }
        | Statement::AttachPartition { .. }
        | Statement::MoveObject { .. }
        | Statement::AlterObject { .. }
        | Statement::AlterRelation { .. }
        | Statement::DropMember
        | Statement::Unlisten { .. } => {}
    }
}

/// A copy under the number of its original, which was dropped, would be taken for it: jobs of roles that know nothing of the copy
/// would run there again.
fn refuse_number() {
    ereport::raise(
        &Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            "permission denied to choose the OID of a database",
        )
        .detail("Pushy knows databases by their OID.")
        .hint("Leave OID out, or ask a superuser."),
    );
}

fn after(statement: &Statement) {
    let Some(shared) = shared::get() else { return };
    match statement {
        Statement::DropDatabase { name } => {
            // Gone by name now; its slot goes with the commit that follows.
            if database::oid_of(name).is_none() {
                for database_slot in &shared.databases {
                    if database_slot.oid() != 0
                        && database_slot.is_quiesced()
                        && database::name(database_slot.oid()).is_none()
                    {
                        pending::drops_database(database_slot.oid());
                    }
                }
            }
        }
        Statement::DropExtension | Statement::DropOwned { .. } => {
            let here = shared.find_database(database::current());
            let was_here = here.is_some_and(|here| here.presence() != Presence::Absent);
            if was_here && identity::extension_oid().is_none() {
                pending::presence(Presence::Absent);
            }
        }
        Statement::AlterExtension => pending::privileges_changed(None),
        // pushy.databases may name it now, or no longer.
        Statement::RenameDatabase { .. } | Statement::ChangeAccess => pending::access_changed(),
        Statement::SetOfDatabase { name } => {
            let database_slot = database::oid_of(name).and_then(|oid| shared.find_database(oid));
            if let Some(database_slot) = database_slot {
                database_slot.settings_doubted.store(true, Ordering::SeqCst);
                // Read when this has committed.
                pending::access_changed();
            }
        }
        // What was prepared may have made rows ready, or unlocked them, changed queues or what roles may do, or created the
        // extension: nobody else announces it. Undone it has at least unlocked them.
        Statement::FinishPrepared { name } => {
            let here = database::current();
            let owed = shared.finish_prepared(here, name.to_bytes(), transaction::is_running);
            for oid in owed.quiesced {
                pending::quiesced(oid);
            }
            let is_announced = match &owed.brings {
                Brings::Nothing => true,
                Brings::Ready(ready) => announces(shared, ready),
                Brings::Anything => false,
            };
            if !is_announced {
                announce_anything(shared, owed.is_known);
            }
        }
        Statement::SetConstraints => session::constraints_set(),
        Statement::MoveDatabase { .. }
        | Statement::CopyDatabase { .. }
        | Statement::Prepare { .. }
        | Statement::AlterColumns { .. }
        | Statement::CreateTrigger { .. }
        | Statement::SwitchTriggers { .. }
        | Statement::RenameColumn { .. }
        | Statement::Listen { .. }
        | Statement::RenameSchema { .. }
        | Statement::AttachPartition { .. }
        | Statement::MoveObject { .. }
        | Statement::AlterObject { .. }
        | Statement::AlterRelation { .. }
        | Statement::DropMember
        | Statement::Unlisten { .. } => {}
    }
}

/// What a prepared transaction has made ready is announced with the commit of this one, as if it were its own; false where a queue has no
/// slot.
fn announces(shared: &Shared, ready: &ReadyAtEnd) -> bool {
    let Some(slots) = shared.slots_of(ready) else {
        return false;
    };
    for (slot, first) in slots.into_iter().zip(ready.firsts()) {
        // How many jobs were enqueued is not noted: none is counted.
        pending::ready(slot, first.key, first.priority, first.position as i64, 0);
    }
    if ready.waiting_from != NEVER {
        pending::waiting_from(ready.waiting_from);
    }
    if ready.logged {
        pending::logged();
    }
    true
}

/// It may have brought whatever can be prepared.
#[cold]
fn announce_anything(shared: &Shared, is_known: bool) {
    pending::sweep();
    pending::privileges_changed(None);
    pending::access_changed();
    let here = shared.ensure_database(database::current());
    // The first that was ever logged here may have been prepared before the server was started.
    if here.is_some_and(|here| here.log.part().is_some() || !is_known) {
        pending::logged();
    }
    let is_away =
        |here: &DatabaseSlot| matches!(here.presence(), Presence::Absent | Presence::Incompatible);
    if here.is_some_and(is_away) {
        pending::presence(Presence::Unknown);
    }
}

/// Asks all workers to leave a database, waits until they have, and keeps new ones out until this
/// transaction ends. Running jobs are rolled back, uncharged, and run again.
fn quiesce(shared: &Shared, oid: u32) {
    let Some(database_slot) = shared.find_database(oid) else {
        return;
    };
    if pending::quiesced(oid) {
        database_slot.quiesced.fetch_add(1, Ordering::SeqCst);
    }
    ask_to_leave(shared, database_slot);
    database_slot.worker_left.wait_until(PATIENCE, || {
        ask_to_leave(shared, database_slot);
        is_empty(shared, database_slot).then_some(())
    });
}

fn ask_to_leave(shared: &Shared, database_slot: &DatabaseSlot) {
    let oid = database_slot.oid();
    let mine = shared::executor::mine();
    for (slot, executor) in shared.executors.iter().enumerate() {
        if executor.database.load(Ordering::SeqCst) == oid && mine != Some(slot) {
            // First the request, which its signal handler reads: then nobody is charged.
            executor.ask_to_stop();
            signals::terminate(executor.pid.load(Ordering::SeqCst));
        }
    }
    KINDS
        .iter()
        .for_each(|kind| kind.ask_to_leave(database_slot));
}

fn is_empty(shared: &Shared, database_slot: &DatabaseSlot) -> bool {
    let oid = database_slot.oid();
    let mine = shared::executor::mine();
    KINDS.iter().all(|kind| kind.of(database_slot).is_absent())
        && !shared.executors.iter().enumerate().any(|(slot, executor)| {
            executor.database.load(Ordering::SeqCst) == oid && mine != Some(slot)
        })
}
