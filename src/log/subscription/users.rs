//! Subscriptions as users of queues and of channels.

use super::restore;
use super::table::{all, Subscription};
use crate::channel::users::Users;
use crate::errors::{quote_literal, Result};
use crate::pg::identity;
use crate::queue::definition::QueueDefinition;
use crate::queue::dependents::{Dependent, Dependents};

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
    let mut feeding = Vec::new();
    for subscription in all()? {
        if subscription
            .queue
            .as_ref()
            .map_or(Ok(false), |held| held.feeds(queue))?
        {
            feeding.push(subscription);
        }
    }
    Ok(feeding)
}
