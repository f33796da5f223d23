//! The workers of which a database has one at most: started where they are wanted, looked after when they have ended.

use std::collections::HashSet;

use pushy_core::capacity::START_US;

use crate::pg::worker::{self, Status};
use crate::pg::{clock, signals};
use crate::shared::database::NEVER;
use crate::worker::launcher::kinds::{DatabaseKind, KINDS};
use crate::worker::launcher::{look_at_start, Launching, LOST_US, MOST_START_US};

/// So many servants of databases that have failed before may hang at a time.
const MOST_HANGING: usize = 2;

impl Launching {
    /// Forgets workers that have ended, gives up those that are not coming, and ends those that have not come up in time.
    /// Answers when to look again.
    pub(crate) fn reap_servants(&mut self) -> i64 {
        let next = KINDS.iter().map(|kind| self.reap(kind)).min();
        // A database may be gone, or closed.
        let known = |oid: u32| self.names.contains_key(&oid);
        let has_failed =
            self.shared.databases.iter().any(|place| {
                place.oid() != 0 && place.scheduler().has_failed() && known(place.oid())
            });
        if has_failed {
            self.refresh_databases();
        }
        next.unwrap_or(NEVER)
    }

    fn reap(&mut self, kind: &'static DatabaseKind) -> i64 {
        let now = clock::now().0;
        let ended: HashSet<u32> = self
            .servants
            .iter()
            .filter(|((name, _), handle)| *name == kind.name && handle.status() == Status::Stopped)
            .map(|((_, oid), _)| *oid)
            .collect();
        let mut next = NEVER;
        let databases = &self.shared.databases;
        for place in databases.iter().filter(|place| place.oid() != 0) {
            let (oid, servant) = (place.oid(), kind.of(place));
            let Some(since) = servant.coming_since() else {
                continue;
            };
            let is_ours = self.servants.contains_key(&(kind.name, oid));
            let is_gone = ended.contains(&oid) || (!is_ours && now - since > LOST_US);
            if is_gone && servant.give_up_start(now) {
                // Somebody may wait for it to be gone.
                place.worker_left.broadcast();
                continue;
            }
            if servant.is_connecting() && now - since > START_US {
                signals::terminate(servant.pid());
            }
            next = next.min(look_at_start(since, now));
        }
        self.servants
            .retain(|(name, oid), _| *name != kind.name || !ended.contains(oid));
        next
    }

    /// Starts workers where they are wanted; answers when the next one is.
    pub(crate) fn start_servants(&mut self) -> i64 {
        let next = KINDS.iter().map(|kind| self.start(kind)).min();
        next.unwrap_or(NEVER)
    }

    fn start(&mut self, kind: &'static DatabaseKind) -> i64 {
        let now = clock::now().0;
        let mut next = NEVER;
        let shared = self.shared;
        let coming = kind.coming(&shared.databases);
        let mut starting = coming.filter(|since| *since >= now - MOST_START_US).count();
        for place in shared.databases.iter().filter(|place| place.oid() != 0) {
            let (oid, servant) = (place.oid(), kind.of(place));
            if place.is_quiesced() || !servant.is_absent() {
                continue;
            }
            let due = (kind.wanted)(self, place, now).max(servant.retry_at());
            if due > now {
                next = next.min(due);
                continue;
            }
            if !self.runs_in(place) {
                continue;
            }
            if kind.one_after_another && starting > 0 {
                continue;
            }
            if servant.has_failed() && self.hanging(kind, now) >= MOST_HANGING {
                continue;
            }
            let taken = (kind.takes)(self, place, now);
            let ticket = servant.set_starting(oid, now);
            let title = format!("{}: {}", kind.process.name, self.names[&oid]);
            match worker::start(kind.process, &title, ticket.to_arg()) {
                Some(handle) => {
                    self.servants.insert((kind.name, oid), handle);
                    starting += 1;
                    self.fed();
                }
                None => {
                    servant.take_back_start();
                    (kind.puts_back)(self, place, taken);
                    next = next.min(self.starve(now));
                    next = next.min(self.make_room((oid, 0), now));
                    break;
                }
            }
        }
        next
    }

    /// How many of a kind hang in their start: each takes a slot of the server's workers. While many do, none is started in a
    /// database where one has failed before.
    fn hanging(&self, kind: &DatabaseKind, now: i64) -> usize {
        let coming = kind.coming(&self.shared.databases);
        coming.filter(|since| *since < now - MOST_START_US).count()
    }
}
