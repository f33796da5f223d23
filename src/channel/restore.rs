//! Channels that came here by a restore or a copy go on with the queues.

use super::granted::{self, GrantedChannel};
use super::name::Channel;
use crate::errors::Result;
use crate::pg::home::Home;
use crate::pg::identity;
use crate::queue::dependents::{Dependents, Rest};
use crate::queue::gateway_event::{self, GatewayEvent};
use crate::shared::pending;

/// Channels, as queues have them.
pub const DEPENDENTS: Dependents = Dependents {
    kind: ["channel", "channels"],
    of_queue: |_| Ok(Vec::new()),
    take_up: |_| Ok(()),
    forget_lost: |_| Ok(Vec::new()),
    adopt_all,
    adopt_from,
    rest,
};

/// Grants that were loaded without their channel, in words; removes them, if asked to.
fn rest(is_dropped: bool) -> Result<Option<Rest>> {
    let grants = identity::as_owner(|| Ok(granted::rest(is_dropped)))?;
    let reason = match (grants, is_dropped) {
        (0, _) => return Ok(None),
        (grants, true) => format!(
            "dropped, because they were loaded without their channel: grants, {grants}"
        ),
        (grants, false) => format!(
            "they were loaded without their channel, and let nobody in: grants, {grants}. To drop them: SELECT * FROM pushy.resume_after_restore(drop_rest => true). To have them, load table pushy_internal.channel of the dump, too"
        ),
    };
    Ok(Some(("grants without their channel", reason)))
}

/// Channels that came here by a restore or a copy, of this caller or all: what they are called, and what is in the way.
fn adopt_all(all: bool) -> Result<Vec<(String, Option<String>)>> {
    let caller = identity::current_user();
    adopt_those(|owned| !owned.is_home() && (all || owned.is_owned_by(caller)))
}

/// The same for those whose home was `before`, which this database was until pg_upgrade.
fn adopt_from(before: &Home) -> Result<Vec<(String, Option<String>)>> {
    adopt_those(|owned| owned.was_at_home(before))
}

fn adopt_those(wanted: impl Fn(&GrantedChannel) -> bool) -> Result<Vec<(String, Option<String>)>> {
    let mut answered = Vec::new();
    for mut owned in identity::as_owner(granted::all)? {
        if !wanted(&owned) {
            continue;
        }
        let name = Channel::shown_ident(&owned.channel);
        let moved = identity::as_owner(|| Ok(owned.adopt()))?;
        answered.push((name, moved.err().map(|error| error.message)));
    }
    if !answered.is_empty() {
        pending::privileges_changed(None);
        gateway_event::publish(&GatewayEvent::Grants { channel: None })?;
    }
    Ok(answered)
}
