//! Subscriptions as users of queues and of channels.

use super::restore;
use super::table::{all, lock, naming, Subscription};
use crate::channel::users::Users;
use crate::errors::{quote_literal, Result};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid};
use crate::queue::definition::QueueDefinition;
use crate::queue::dependents::{Dependent, Dependents};
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

/// As with watches.
fn take_up(queue: &QueueDefinition) -> Result<()> {
    for subscription in naming(queue)? {
        let Some(held) = &subscription.queue else {
            continue;
        };
        let Some(renewed) = held.renewed(subscription.home.system, queue)? else {
            continue;
        };
        lock(&subscription.name)?;
        let (name, id) = (renewed.name.as_str(), renewed.queue_id);
        let params = params![subscription.number, name, id, renewed.owner, held.queue_id];
        if spi::run(&TAKE_UP, params) > 0 {
            // The relay reads anew for whom it works, and looks what there is for it.
            pending::privileges_changed(None);
            pending::logged();
        }
    }
    Ok(())
}
