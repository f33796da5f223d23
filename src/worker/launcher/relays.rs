//! Relays: one for each database where something was logged, or whose log has aged.

use std::sync::atomic::Ordering;

use super::{reap, Launching};
use crate::pg::clock;
use crate::pg::worker;
use crate::relay;
use crate::shared::database::{Database, Presence, NEVER};

impl Launching {
    /// Looks after relays that have ended before they came up.
    pub(super) fn reap_relays(&mut self) {
        reap(&mut self.relays, self.shared, |place| &place.log.relay);
    }

    /// Starts relays where they are due; answers when the next one is.
    pub(super) fn start_relays(&mut self) -> i64 {
        let now = clock::now().0;
        let mut next = NEVER;
        let shared = self.shared;
        for place in &shared.databases {
            let oid = place.oid();
            let due = relay_due(place);
            if due > now {
                next = next.min(due);
                continue;
            }
            if !self.runs_in(place) {
                continue;
            }
            let log = &place.log;
            log.relay.set_starting(now);
            let due = log.relay_due.swap(NEVER, Ordering::SeqCst);
            let title = format!("pushy relay: {}", self.names[&oid]);
            match worker::start(&relay::KIND, &title, oid as usize) {
                Some(handle) => {
                    self.relays.insert(oid, handle);
                    self.fed();
                }
                None => {
                    log.relay.end_starting();
                    log.relay_due.store(due, Ordering::SeqCst);
                    next = next.min(self.starve(now));
                    next = next.min(self.make_room((oid, 0), now));
                    break;
                }
            }
        }
        next
    }
}

/// When the relay of a database is wanted (µs), 0 for now; NEVER where it runs, or must not.
fn relay_due(place: &Database) -> i64 {
    let log = &place.log;
    let must_not = place.oid() == 0
        || place.presence() != Presence::Present
        || place.is_quiesced()
        || !log.relay.is_absent();
    if must_not {
        return NEVER;
    }
    let due = if log.is_dirty() {
        0
    } else {
        log.relay_due.load(Ordering::SeqCst)
    };
    due.max(log.relay.retry_at())
}
