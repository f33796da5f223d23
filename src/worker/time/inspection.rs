//! A scheduler's first look after a start of the server, at what is in nobody's memory: events and jobs that were left, transactions
//! that are prepared.

use std::sync::atomic::Ordering;

use super::scheduler::Scheduler;
use crate::errors::Result;
use crate::log;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, database, identity, transaction, BuiltinOid, Oid};
use crate::shared;

impl Scheduler {
    /// Once after a start of the server: events logged before it, and jobs left of queues that are gone, are in nobody's
    /// memory. And where transactions found no place among those of whose end nobody tells.
    pub(super) fn inspect(&self) -> Result<()> {
        if self.database_slot.is_inspected.load(Ordering::SeqCst) {
            if self.database_slot.has_beyond() {
                self.inspect_untold()?;
                self.ask_for_orphans();
                // Some may have found none again.
                self.come_back_unless(!self.database_slot.has_beyond());
            }
            return Ok(());
        }
        let is_relay_due = || Ok(log::is_used()? || log::is_timeline_news()?);
        if transaction::run(|| identity::as_owner(is_relay_due))? {
            shared::expect().announce_logged(self.database_slot, false);
        }
        if transaction::most_prepared() > 0 {
            // A subscription of PostgreSQL's may have prepared some before the server's start, or committed them since.
            self.inspect_untold()?;
        }
        self.ask_for_orphans();
        self.database_slot
            .is_inspected
            .store(true, Ordering::SeqCst);
        Ok(())
    }

    /// Where there are no queues at all, a restore has brought the jobs and not yet the queues.
    fn ask_for_orphans(&self) {
        if !self.queues.is_empty() {
            self.database_slot
                .orphans_requested
                .store(true, Ordering::SeqCst);
        }
    }

    fn inspect_untold(&self) -> Result<()> {
        shared::expect().inspect_untold(self.database_slot, clock::now().0, || {
            transaction::run(prepared_here)
        })
    }
}

static PREPARED_HERE: Plan = Plan::new(
    "SELECT p.transaction::pg_catalog.text::pg_catalog.int8 FROM pg_catalog.pg_prepared_xact() p WHERE p.dbid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

/// Transactions of this database that are prepared.
fn prepared_here() -> Result<Vec<u32>> {
    if transaction::most_prepared() == 0 {
        return Ok(Vec::new());
    }
    identity::as_owner(|| {
        Ok(spi::connect(|spi| {
            let found = spi.run(&PREPARED_HERE, params![Oid::from(database::current())]);
            found.rows().map(|row| row.i64(1) as u32).collect()
        }))
    })
}
