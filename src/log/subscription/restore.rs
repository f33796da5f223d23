//! Subscriptions that came here by a restore or a copy of the database: their cursors mean nothing here.

use pushy_core::log::cursor::Cursor;

use super::table::{self, Subscription};
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::home::Home;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid};
use crate::shared::pending;

static MOVE_IN: Plan = Plan::new(
    "UPDATE pushy_internal.subscription SET epoch = $2, tick = $3, n = $4, home_system = $5, home_database = $6, home_extension = $7, \
            owner = $8, owner_name = $9::pg_catalog.name, queue_owner = $10, stopped = NULL \
      WHERE name OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TEXTOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT8OID,
        BuiltinOid::OIDOID,
        BuiltinOid::OIDOID,
        BuiltinOid::OIDOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::OIDOID,
    ],
);

/// Makes this database the home of all subscriptions that came from elsewhere (`all`), or of the caller's, and has their
/// readers given a resync; answers for each its name and what still keeps it from going on.
pub fn adopt_all(all: bool) -> Result<Vec<(String, Option<String>)>> {
    let caller = identity::current_user();
    let waits = |subscription: &Subscription| {
        !subscription.is_home && (all || subscription.is_owner(caller))
    };
    let mut answered = Vec::new();
    for subscription in identity::as_owner(table::all)?.into_iter().filter(waits) {
        let locked = identity::as_owner(|| table::lock(&subscription.name))?;
        let Some(subscription) = locked.filter(waits) else {
            continue;
        };
        let name = subscription.name.clone();
        let moved = identity::as_owner(|| Ok(adopt(&subscription, Cursor::NOWHERE)))?;
        answered.push((name, moved.err().map(|error| error.message)));
    }
    announce(&answered);
    Ok(answered)
}

/// Makes this database the home of the subscriptions whose home was `before`, which this database was until pg_upgrade: the log
/// has come too, so their cursors mean what they did.
pub fn adopt_from(before: &Home) -> Result<Vec<(String, Option<String>)>> {
    let mut answered = Vec::new();
    for subscription in identity::as_owner(table::all)? {
        if subscription.home != *before {
            continue;
        }
        let name = subscription.name.clone();
        let moved = identity::as_owner(|| Ok(adopt(&subscription, subscription.cursor)))?;
        answered.push((name, moved.err().map(|error| error.message)));
    }
    announce(&answered);
    Ok(answered)
}

/// As when one is created.
fn announce(answered: &[(String, Option<String>)]) {
    if !answered.is_empty() {
        pending::privileges_changed(None);
        pending::logged();
    }
}

/// As the extension's owner.
fn adopt(subscription: &Subscription, cursor: Cursor) -> Result<()> {
    let owner = subscription.owner_here().ok_or_else(|| {
        Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("role \"{}\" does not exist", subscription.owner_name),
        )
        .hint("A superuser can create the subscription again, and owns it then.")
    })?;
    subscription.filter()?;
    let held = subscription.queue.as_ref();
    let queue = held
        .map(|held| held.come_from(subscription.home.system))
        .transpose()?;
    if let Some(queue) = &queue {
        queue.open(owner)?;
    }
    let here = Home::here();
    let Cursor { epoch, tick, n } = cursor;
    spi::run(
        &MOVE_IN,
        params![
            subscription.name.as_str(),
            epoch,
            tick,
            n,
            here.system,
            here.database,
            here.extension,
            owner,
            identity::role_name(owner),
            queue.map(|queue| queue.owner),
        ],
    );
    Ok(())
}
