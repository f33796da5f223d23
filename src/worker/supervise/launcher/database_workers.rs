//! The workers of which a database has one at most: started where they are wanted, looked after when they have ended.

use std::collections::HashSet;

use pushy_core::capacity::START_US;
use pushy_core::slots::Class;

use crate::pg::worker::{self, Status};
use crate::pg::{clock, signals};
use crate::shared::database::{DatabaseSlot, NEVER};
use crate::worker::launcher::kinds::{DatabaseKind, KINDS};
use crate::worker::launcher::{next_check_of_start, Launcher, LOST_US, MOST_START_US};

/// So many workers of databases that have failed before may hang at a time.
const MOST_HANGING: usize = 2;

impl Launcher {
    /// Forgets workers that have ended, gives up those that are not coming, and ends those that have not come up in time.
    /// Answers when to look again.
    pub(super) fn reap_database_workers(&mut self) -> i64 {
        let next = KINDS.iter().map(|kind| self.reap(kind)).min();
        // A database may be gone, or closed.
        let is_served = |oid: u32| self.names.contains_key(&oid);
        let has_failed = self.shared.databases.iter().any(|database_slot| {
            database_slot.oid() != 0
                && database_slot.scheduler().has_failed()
                && is_served(database_slot.oid())
        });
        if has_failed {
            self.refresh_databases();
        }
        next.unwrap_or(NEVER)
    }

    fn reap(&mut self, kind: &'static DatabaseKind) -> i64 {
        let now = clock::now().0;
        let ended: HashSet<u32> = self
            .workers
            .iter()
            .filter(|((name, _), handle)| *name == kind.name && handle.status() == Status::Stopped)
            .map(|((_, oid), _)| *oid)
            .collect();
        let mut next = NEVER;
        let databases = &self.shared.databases;
        for database_slot in databases
            .iter()
            .filter(|database_slot| database_slot.oid() != 0)
        {
            let (oid, worker) = (database_slot.oid(), kind.of(database_slot));
            let Some(since) = worker.coming_since() else {
                continue;
            };
            let is_ours = self.workers.contains_key(&(kind.name, oid));
            let is_gone = ended.contains(&oid) || (!is_ours && now - since > LOST_US);
            if is_gone && worker.give_up_start(now) {
                // Somebody may wait for it to be gone.
                database_slot.worker_left.broadcast();
                continue;
            }
            if worker.is_connecting() && now - since > START_US {
                signals::terminate(worker.pid());
            }
            next = next.min(next_check_of_start(since, now));
        }
        self.workers
            .retain(|(name, oid), _| *name != kind.name || !ended.contains(oid));
        next
    }

    /// Starts workers where they are wanted, the one that was started longest ago first; answers when the next one is.
    pub(super) fn start_database_workers(&mut self) -> i64 {
        self.turn.begins(Class::OfDatabases);
        let now = clock::now().0;
        let shared = self.shared;
        let mut next = NEVER;
        let mut wanted = Vec::new();
        for kind in &KINDS {
            for database_slot in shared.databases.iter().filter(|slot| slot.oid() != 0) {
                match self.is_wanted(kind, database_slot, now) {
                    Ok(()) => wanted.push((kind, database_slot)),
                    Err(at) => next = next.min(at),
                }
            }
        }
        wanted.sort_by_key(|(kind, database_slot)| kind.of(database_slot).last_started());
        for (kind, database_slot) in wanted {
            if self.turn.is_others(Class::OfDatabases) {
                self.turn.passed_on(Class::OfDatabases);
                return next;
            }
            // Again, because one that was started meanwhile may be in the way.
            match self.is_wanted(kind, database_slot, now) {
                Ok(()) => {}
                Err(at) => {
                    next = next.min(at);
                    continue;
                }
            }
            if !self.start(kind, database_slot, now) {
                next = next.min(self.no_worker_slot(now));
                self.turn.lacked(Class::OfDatabases);
                return next.min(self.make_room(None, now));
            }
            self.got_worker_slot(Class::OfDatabases);
        }
        next
    }

    /// Whether one is to be started now; if not, when to look again.
    fn is_wanted(
        &mut self,
        kind: &'static DatabaseKind,
        database_slot: &'static DatabaseSlot,
        now: i64,
    ) -> Result<(), i64> {
        let worker = kind.of(database_slot);
        if database_slot.is_quiesced() || !worker.is_absent() {
            return Err(NEVER);
        }
        let due = (kind.wanted)(self, database_slot, now).max(worker.retry_at());
        if due > now {
            return Err(due);
        }
        let is_starting = |since: i64| kind.one_after_another && since >= now - MOST_START_US;
        let waits = !self.runs_in(database_slot)
            || kind.coming(&self.shared.databases).any(is_starting)
            || worker.has_failed() && self.hanging(kind, now) >= MOST_HANGING;
        if waits {
            return Err(NEVER);
        }
        Ok(())
    }

    /// False: no slot is free.
    fn start(
        &mut self,
        kind: &'static DatabaseKind,
        database_slot: &'static DatabaseSlot,
        now: i64,
    ) -> bool {
        let (oid, worker) = (database_slot.oid(), kind.of(database_slot));
        let taken = (kind.takes)(self, database_slot, now);
        let last_started = worker.last_started();
        let start = worker.set_starting(oid, now);
        let title = format!("{}: {}", kind.process.name, self.names[&oid]);
        if let Some(handle) = worker::start(kind.process, &title, start.to_arg()) {
            self.workers.insert((kind.name, oid), handle);
            return true;
        }
        worker.take_back_start(last_started);
        (kind.puts_back)(self, database_slot, taken);
        false
    }

    /// How many of a kind hang in their start: each takes a slot of the server's workers. While many do, none is started in a
    /// database where one has failed before.
    fn hanging(&self, kind: &DatabaseKind, now: i64) -> usize {
        let coming = kind.coming(&self.shared.databases);
        coming.filter(|since| *since < now - MOST_START_US).count()
    }
}
