//! Schedulers: one for each database where something is due, one start after another.

use std::sync::atomic::Ordering;

use super::{may_try, reap, Launching, MOST_START_US};
use crate::pg::clock;
use crate::pg::worker;
use crate::shared::database::{Database, Presence, NEVER};
use crate::shared::servant::Servant;
use crate::worker::scheduler;

/// A scheduler is started so long before something is due: it takes some milliseconds to come up.
const LEAD_US: i64 = 200_000;
/// So long after its start the server is left to those who connect again.
pub(super) const FIRST_LOOK_US: i64 = 100_000;
/// A look that takes longer, for somebody holds a lock, does not keep others from beginning.
const MOST_LOOK_US: i64 = 1_000_000;
/// The longest rest after a look.
const MOST_REST_US: i64 = 50_000;
/// The longest wait for an executor that is on its way.
const MOST_WAIT_US: i64 = 100_000;

fn scheduler_of(place: &Database) -> &Servant {
    &place.scheduler
}

impl Launching {
    /// Looks after schedulers that have ended or do not come up; answers when to look again.
    pub(super) fn reap_schedulers(&mut self) -> i64 {
        let shared = self.shared;
        let next = reap(&mut self.schedulers, shared, scheduler_of);
        let failed: Vec<u32> = shared
            .databases
            .iter()
            .filter(|place| place.oid() != 0 && place.scheduler.has_failed())
            .map(Database::oid)
            .collect();
        if failed.iter().any(|oid| self.names.contains_key(oid)) {
            self.refresh_databases();
        }
        next
    }

    /// Starts schedulers where something is due; answers when the next one is.
    pub(super) fn start_schedulers(&mut self) -> i64 {
        let now = clock::now().0;
        let mut next = NEVER;
        let shared = self.shared;
        let mut starting = shared
            .databases
            .iter()
            .filter(|place| {
                let since = place.scheduler.coming_since();
                place.oid() != 0 && since.is_some_and(|since| since >= now - MOST_START_US)
            })
            .count();
        let may_look_at = self.next_look(now);
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
            let mut due = self.scheduler_due(place).max(place.scheduler.retry_at());
            let is_look = self.is_first_look(place);
            if is_look {
                due = due.max(may_look_at);
            }
            if due > now {
                next = next.min(due);
                continue;
            }
            if !self.runs_in(place) {
                continue;
            }
            // One after another: two hundred databases at start must not take all slots.
            if starting > 0 || !may_try(shared, scheduler_of, &place.scheduler, now) {
                continue;
            }
            let ticket = place.scheduler.set_starting(oid, now);
            let title = format!("pushy scheduler: {}", self.names[&oid]);
            match worker::start(&scheduler::KIND, &title, ticket.to_arg()) {
                Some(handle) => {
                    self.schedulers.insert(oid, handle);
                    starting += 1;
                    if is_look {
                        self.look = Some((oid, now));
                    }
                    self.fed();
                }
                None => {
                    place.scheduler.take_back_start();
                    next = next.min(self.starve(now));
                    next = next.min(self.make_room((oid, 0), now));
                    break;
                }
            }
        }
        next
    }

    /// When the next look into a database that nobody has asked for may begin. Each takes some 10 ms of a core, and
    /// at a start of the server those who connect again want the cores too: one at a time, as long a rest after
    /// each as it took, and none while an executor is on its way to a job.
    fn next_look(&mut self, now: i64) -> i64 {
        if let Some((oid, began)) = self.look {
            let place = self.shared.find_database(oid);
            let is_over = place.is_none_or(|place| {
                place.looked_into.load(Ordering::SeqCst) || place.scheduler.is_absent()
            });
            if !is_over && now < began + MOST_LOOK_US {
                return began + MOST_LOOK_US;
            }
            self.look = None;
            self.look_after = now + (now - began).min(MOST_REST_US);
        }
        let executors = self.shared.executors.iter();
        let coming = executors.filter(|executor| executor.state().is_coming());
        // Each tells us when it has come up.
        let given_up_at =
            coming.map(|executor| executor.started_at.load(Ordering::SeqCst) + MOST_WAIT_US);
        given_up_at.fold(self.look_after, i64::max)
    }

    /// Whether the scheduler would be started for nothing but to see what is there. Somebody may have enqueued
    /// already: that job waits for an executor, not for the scheduler.
    fn is_first_look(&self, place: &Database) -> bool {
        !place.looked_into.load(Ordering::SeqCst) && !self.is_asked_for(place)
    }

    /// When the scheduler of a database is wanted, 0 for now.
    fn scheduler_due(&self, place: &Database) -> i64 {
        if place.presence() == Presence::Unknown || self.is_asked_for(place) {
            return 0;
        }
        let due = place.due.load(Ordering::SeqCst);
        if due == NEVER {
            NEVER
        } else {
            due.saturating_sub(LEAD_US)
        }
    }

    fn is_asked_for(&self, place: &Database) -> bool {
        place.sweep_requested.load(Ordering::SeqCst)
            || place.orphans_requested.load(Ordering::SeqCst)
            || self.recorder.has_verdicts(place.oid())
    }
}
