//! A scheduler's queues: read again whenever a definition has changed, and what the log says of those that cannot run.

use std::sync::atomic::Ordering;

use pushy_core::rest::Rest;
use pushy_core::version::Fit;

use super::queue_slots;
use super::scheduler::Scheduler;
use crate::errors::{Error, Result, SqlState};
use crate::installation::Traces;
use crate::pg::transaction;
use crate::pg::{clock, database, ereport, identity, interrupts, script, worker};
use crate::queue::cache;
use crate::queue::upgrade;
use crate::shared;
use crate::shared::database::{Look, Presence, NEVER};

impl Scheduler {
    /// Reads the queues after a change, once: what changes meanwhile is read in a later round, because anybody changes some of his
    /// own all the time. False when the extension is not here. While reading rests, everything goes on with the queues that were
    /// read last: who changes one says so in shared memory himself, and who makes jobs of a new one ready reads it.
    pub(super) fn refresh(&mut self) -> Result<bool> {
        interrupts::check();
        let generation = self.database_slot.definitions.load(Ordering::SeqCst);
        if self.generation == Some(generation) || self.is_reading_put_off() {
            return Ok(true);
        }
        let began = clock::now();
        let is_here = self.read_queues(generation)?;
        let now = clock::now().0;
        let until = Rest::DEFINITIONS.until(now - began.0, now);
        self.database_slot
            .queues_rest_until
            .store(until, Ordering::SeqCst);
        Ok(is_here)
    }

    fn is_reading_put_off(&self) -> bool {
        let until = self.database_slot.queues_rest_until.load(Ordering::SeqCst);
        self.generation.is_some()
            && self.database_slot.presence() == Presence::Present
            && Rest::DEFINITIONS.is_on(until, clock::now().0)
    }

    /// When (µs) queues that have changed are read.
    pub(super) fn next_reading(&self) -> Option<i64> {
        let generation = self.database_slot.definitions.load(Ordering::SeqCst);
        let until = match self.generation {
            Some(_) => self.database_slot.queues_rest_until.load(Ordering::SeqCst),
            // What has not been read yet is not put off.
            None => 0,
        };
        (self.generation != Some(generation)).then(|| until.max(clock::now().0))
    }

    /// Once, because in a copied or restored database nothing runs, and the server's log is where its owner looks first.
    fn log_elsewhere(&self) {
        let elsewhere = self.queues.iter().filter(|queue| !queue.is_home()).count();
        if elsewhere == 0
            || self
                .database_slot
                .said_elsewhere
                .swap(true, Ordering::SeqCst)
        {
            return;
        }
        ereport::log(
            &Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("{elsewhere} queues of this database came here by a restore or a copy, and do not run"),
            )
            .hint("Once nothing is done twice by it, run in this database: SELECT * FROM pushy.resume_after_restore()"),
        );
    }

    /// Once, until all have a place.
    fn log_placeless(&self) {
        let placeless: Vec<_> = self
            .queues
            .iter()
            .filter(|queue| cache::is_placeless(queue))
            .collect();
        let was_logged = &self.database_slot.said_placeless;
        let Some(first) = placeless.first() else {
            was_logged.store(false, Ordering::SeqCst);
            return;
        };
        if was_logged.swap(true, Ordering::SeqCst) {
            return;
        }
        ereport::log(
            &Error::new(
                SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                format!(
                    "{} queues of this database do not run: {}",
                    placeless.len(),
                    cache::all_taken()
                ),
            )
            .detail(format!("The first is queue \"{}\".", first.name))
            .hint("Raise pushy.max_queues in postgresql.conf and restart the server, or drop queues no longer used. Their jobs are kept; this is said once until all queues have a place."),
        );
    }

    /// False when the extension is not here. Where a commit brings or takes it meanwhile, what was read counts for nothing.
    fn read_queues(&mut self, generation: u64) -> Result<bool> {
        let shared = shared::expect();
        let traces = Traces::begin_look(shared, self.database_slot);
        let is_incompatible = transaction::run(|| {
            let misfit = identity::fit().filter(|fit| *fit != Fit::Works);
            if let Some(fit) = misfit {
                ereport::log(&script::refused(fit));
            }
            Ok(misfit.is_some())
        })?;
        if is_incompatible {
            // ALTER EXTENSION UPDATE has the database looked at again.
            self.database_slot.due.store(NEVER, Ordering::SeqCst);
            return Ok(!self.concludes(traces.look(), Presence::Incompatible));
        }
        let queues = transaction::run(|| {
            if identity::extension_oid().is_none() || worker::is_binary_upgrade() {
                return Ok(None);
            }
            if self.generation.is_none() {
                upgrade::go_on()?;
            }
            queue_slots::load_queues(generation).map(Some)
        })?;
        let Some(queues) = queues else {
            let is_gone = traces.forget(shared, self.database_slot);
            if is_gone {
                self.recorder.forget_database(database::current());
            } else {
                self.generation = None;
            }
            return Ok(!is_gone);
        };
        self.queues = queues;
        self.log_elsewhere();
        self.log_placeless();
        self.generation = Some(generation);
        if self.concludes(traces.look(), Presence::Present) {
            self.database_slot.scheduler().has_succeeded();
        }
        Ok(true)
    }

    /// Says what the look has found, unless a commit has said something meanwhile: then the queues are read again.
    fn concludes(&mut self, look: Look, presence: Presence) -> bool {
        let concludes = shared::expect().conclude_look(self.database_slot, look, presence);
        if !concludes {
            self.generation = None;
        }
        concludes
    }
}
