//! Relays: one for each database where something was logged, or whose log has aged.

use std::sync::atomic::Ordering;

use super::{may_try, reap, Launching};
use crate::pg::clock;
use crate::pg::worker;
use crate::relay;
use crate::shared::database::{Database, Presence, NEVER};
use crate::shared::servant::Servant;

impl Launching {
    /// Looks after relays that have ended or do not come up; answers when to look again.
    pub(super) fn reap_relays(&mut self) -> i64 {
        reap(&mut self.relays, self.shared, relay_of)
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
            if !may_try(shared, relay_of, &log.relay, now) {
                continue;
            }
            let ticket = log.relay.set_starting(oid, now);
            let due = log.relay_due.swap(NEVER, Ordering::SeqCst);
            let title = format!("pushy relay: {}", self.names[&oid]);
            match worker::start(&relay::KIND, &title, ticket.to_arg()) {
                Some(handle) => {
                    self.relays.insert(oid, handle);
                    self.fed();
                }
                None => {
                    log.relay.take_back_start();
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

fn relay_of(place: &Database) -> &Servant {
    &place.log.relay
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
