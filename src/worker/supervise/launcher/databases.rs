//! The databases that the launcher knows: in which of them jobs may run, and which have new rows.

use std::sync::atomic::Ordering;

use crate::errors::{Error, SqlState};
use crate::pg::database::DatabaseRow;
use crate::pg::{clock, database, ereport, transaction};
use crate::settings;
use crate::shared::database::{DatabaseSlot, Presence};
use crate::worker::launcher::{Launcher, SWEEP_US};

fn is_served(database: &DatabaseRow) -> bool {
    database.allows_connections && settings::runs_in(&database.name)
}

impl Launcher {
    /// Reads pg_database: at the start, after a reload, and when a database is met that is not known.
    pub(super) fn refresh_databases(&mut self) {
        let found = transaction::run(|| Ok(database::all()));
        let found = match found {
            Ok(found) => found,
            Err(failure) => {
                ereport::log(&Error::new(
                    SqlState::INTERNAL_ERROR,
                    format!("could not read pg_database: {}", failure.message),
                ));
                return;
            }
        };
        for database_slot in &self.shared.databases {
            let oid = database_slot.oid();
            if oid != 0 && !found.iter().any(|database| database.oid == oid) {
                self.shared.free_database(oid);
                self.recorder.forget_database(oid);
                self.last_started.retain(|pair, _| pair.database != oid);
                self.hangs.retain(|other| other != oid);
            }
        }
        // Before the ready bits are read: a process that finds `left_out` does not call the launcher, but has set its
        // bit.
        for database in &found {
            if let Some(database_slot) = self.shared.find_database(database.oid) {
                self.shared.set_served(database_slot, is_served(database));
            }
        }
        self.names = found
            .into_iter()
            .filter(is_served)
            .map(|database| (database.oid, database.name))
            .collect();
        for oid in self.names.keys() {
            if self.shared.ensure_database(*oid).is_none() {
                ereport::log(
                    &Error::new(
                        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                        "there are more databases than Pushy has room for",
                    )
                    .hint("Name those in which jobs run in pushy.databases."),
                );
                break;
            }
        }
    }

    pub(super) fn runs_in(&mut self, database_slot: &DatabaseSlot) -> bool {
        let oid = database_slot.oid();
        if !self.names.contains_key(&oid) && database_slot.presence() == Presence::Present {
            // New since we last looked, or not for us: ask once per change of its definitions.
            let generation = database_slot.definitions.load(Ordering::SeqCst) + 1;
            if database_slot
                .name_read_at
                .swap(generation, Ordering::SeqCst)
                != generation
            {
                self.refresh_databases();
            }
        }
        self.names.contains_key(&oid)
    }

    /// Once a minute, if anybody has written: asks the schedulers of databases with new rows to look.
    pub(super) fn sweep_if_due(&mut self) {
        let now = clock::now().0;
        if now - self.swept_at < SWEEP_US {
            return;
        }
        self.swept_at = now;
        // Who may connect where was perhaps changed by hand (UPDATE pg_database), which nobody announces.
        self.refresh_databases();
        let xid = transaction::next_xid();
        if xid == self.last_xid {
            return;
        }
        let mut is_put_off = false;
        for database_slot in &self.shared.databases {
            if database_slot.oid() == 0 || database_slot.presence() != Presence::Present {
                continue;
            }
            if database_slot.sweep_rests_until.load(Ordering::SeqCst) > now {
                is_put_off = true;
                continue;
            }
            let writes = transaction::run(|| Ok(database::rows_written(database_slot.oid())));
            let writes = writes.ok().flatten().unwrap_or(xid);
            if database_slot.swept_writes.swap(writes, Ordering::SeqCst) != writes {
                database_slot.sweep_requested.store(true, Ordering::SeqCst);
                database_slot.scheduler().wake();
            }
        }
        if !is_put_off {
            self.last_xid = xid;
        }
    }
}
