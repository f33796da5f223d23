//! Schedulers: one for each database where something is due, one start after another.

use std::sync::atomic::Ordering;

use super::{reap, Launching};
use crate::pg::clock;
use crate::pg::worker;
use crate::shared::database::{Database, Presence, NEVER};
use crate::worker::scheduler;

/// A scheduler is started so long before something is due: it takes some milliseconds to come up.
const LEAD_US: i64 = 200_000;

impl Launching {
    /// Looks after schedulers that have ended before they came up.
    pub(super) fn reap_schedulers(&mut self) {
        let shared = self.shared;
        reap(&mut self.schedulers, shared, |place| &place.scheduler);
        let failed: Vec<u32> = shared
            .databases
            .iter()
            .filter(|place| place.oid() != 0 && place.scheduler.has_failed())
            .map(Database::oid)
            .collect();
        if failed.iter().any(|oid| self.names.contains_key(oid)) {
            self.refresh_databases();
        }
    }

    /// Starts schedulers where something is due; answers when the next one is.
    pub(super) fn start_schedulers(&mut self) -> i64 {
        let now = clock::now().0;
        let mut next = NEVER;
        let shared = self.shared;
        let mut starting = shared
            .databases
            .iter()
            .filter(|place| place.oid() != 0 && place.scheduler.is_starting())
            .count();
        for place in &shared.databases {
            let oid = place.oid();
            if oid == 0 || place.is_quiesced() {
                continue;
            }
            if place.presence() == Presence::Absent {
                // Another CREATE EXTENSION would begin to count its jobs anew.
                self.recorder.forget_database(oid);
                continue;
            }
            if !place.scheduler.is_absent() {
                continue;
            }
            let due = self.scheduler_due(place);
            let due = due.max(place.scheduler.retry_at());
            if due > now {
                next = next.min(due);
                continue;
            }
            if !self.runs_in(place) {
                continue;
            }
            // One after another: two hundred databases at start must not take all slots.
            if starting > 0 {
                continue;
            }
            place.scheduler.set_starting();
            let title = format!("pushy scheduler: {}", self.names[&oid]);
            match worker::start(&scheduler::KIND, &title, oid as usize) {
                Some(handle) => {
                    self.schedulers.insert(oid, handle);
                    starting += 1;
                    self.fed();
                }
                None => {
                    place.scheduler.end_starting();
                    next = next.min(self.starve(now));
                    next = next.min(self.make_room((oid, 0), now));
                    break;
                }
            }
        }
        next
    }

    /// When the scheduler of a database is wanted, 0 for now.
    fn scheduler_due(&self, place: &Database) -> i64 {
        let wanted = place.presence() == Presence::Unknown
            || place.sweep_requested.load(Ordering::SeqCst)
            || place.orphans_requested.load(Ordering::SeqCst)
            || self.recorder.has_verdicts(place.oid());
        if wanted {
            return 0;
        }
        let due = place.due.load(Ordering::SeqCst);
        if due == NEVER {
            NEVER
        } else {
            due.saturating_sub(LEAD_US)
        }
    }
}
