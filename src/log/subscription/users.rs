//! Subscriptions as users of queues and of channels.

use std::time::{Duration, Instant};

use super::restore;
use super::table::{all, find, find_if_free, naming, Subscription};
use crate::channel::users::Users;
use crate::errors::{quote_literal, Result};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, interrupts, latch, BuiltinOid};
use crate::queue::definition::QueueDefinition;
use crate::queue::dependents::{Dependent, Dependents};
use crate::queue::reference::QueueReference;
use crate::shared::pending;

/// Subscriptions, as queues have them.
pub const DEPENDENTS: Dependents = Dependents {
    kind: ["subscription", "subscriptions"],
    of_queue: |queue| {
        let named = |subscription: Subscription| Dependent {
            what: format!("subscription \"{}\"", subscription.name),
            end: format!(
                "SELECT pushy.subscription_drop({})",
                quote_literal(&subscription.name)
            ),
        };
        // Whose owner is gone adds no jobs.
        let feeds = |subscription: &Subscription| subscription.owner_here().is_some();
        Ok(of_queue(queue)?
            .into_iter()
            .filter(feeds)
            .map(named)
            .collect())
    },
    take_up,
    forget_lost: |_| Ok(Vec::new()),
    adopt_all: restore::adopt_all,
    adopt_from: restore::adopt_from,
    rest: |_| Ok(None),
};

/// Subscriptions, as channels have them.
pub const CHANNEL_USERS: Users = Users {
    one: "A subscription",
    does: "reads it",
    of_another: |channel, role| {
        let subscriptions = identity::as_owner(all)?;
        // Nobody's is in nobody's way.
        let foreign = subscriptions.iter().find(|subscription| {
            let mut channels = subscription.channels.iter().flatten();
            channels.any(|named| named == channel)
                && !subscription.is_owner(role)
                && subscription.owner_here().is_some()
        });
        Ok(foreign.map(Subscription::owner_here))
    },
};

/// Those that enqueue into a queue.
fn of_queue(queue: &QueueDefinition) -> Result<Vec<Subscription>> {
    let mut subscriptions = naming(queue)?;
    subscriptions.retain(|subscription| {
        let held = subscription.queue.as_ref();
        held.is_some_and(|held| held.queue_id == queue.queue_id)
    });
    Ok(subscriptions)
}

static TAKE_UP: Plan = Plan::new(
    "UPDATE pushy_internal.subscription s SET queue = $2, queue_id = $3, queue_owner = $4, stopped = NULL \
      WHERE s.subscription_id OPERATOR(pg_catalog.=) $1 AND s.queue_id OPERATOR(pg_catalog.=) $5",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::TEXTOID,
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::INT4OID,
    ],
);

/// The relay holds a row for a turn, and for that a call waits; for whoever holds one for longer it does not.
const RELAYS_TURN: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Locks a row that nobody else holds, at the latest by then.
fn lock_soon(name: &str, until: Instant) -> Result<bool> {
    // Bounded: by the time.
    while find_if_free(name)?.is_none() {
        if Instant::now() >= until || find(name)?.is_none() {
            return Ok(false);
        }
        interrupts::check();
        latch::wait(Some(LOOK_AGAIN));
    }
    Ok(true)
}

/// As with watches. One whose row somebody holds is the relay's, once it is free ([`hold`]).
fn take_up(queue: &QueueDefinition) -> Result<()> {
    let until = Instant::now() + RELAYS_TURN;
    for subscription in naming(queue)? {
        let Some(held) = &subscription.queue else {
            continue;
        };
        let Some(renewed) = held.renewed(subscription.home.system, queue)? else {
            continue;
        };
        if lock_soon(&subscription.name, until)? {
            hold(&subscription, held, &renewed);
        }
        // The relay reads anew for whom it works, and looks what there is for it.
        pending::privileges_changed(None);
        pending::logged();
    }
    Ok(())
}

/// Has it hold its queue as that is by now. The caller has locked its row.
pub fn hold(subscription: &Subscription, held: &QueueReference, renewed: &QueueReference) {
    let (name, id) = (renewed.name.as_str(), renewed.queue_id);
    let params = params![subscription.number, name, id, renewed.owner, held.queue_id];
    spi::run(&TAKE_UP, params);
}
