//! How many queues a role may own, so that one role cannot take all places from the others.

use pushy_core::share;

use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identifier, identity, role_lock, transaction, BuiltinOid, Oid};
use crate::{settings, shared};

static COUNT: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FROM pushy_internal.queue q WHERE q.owner OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::OIDOID],
);

/// Refuses one more queue of a role that has its share of them: those of this database by their rows, and those of all databases by
/// their places in shared memory. A superuser has no bound but pushy.max_queues.
pub fn require(owner: Oid) -> Result<()> {
    if identity::is_superuser(owner) {
        return Ok(());
    }
    // Another transaction of the role may be about to add one, here or in another database.
    role_lock::lock(owner)?;
    let here = identity::as_owner(|| {
        Ok(transaction::with_latest_snapshot(|| {
            spi::connect(|spi| {
                spi.run_in_active_snapshot(&COUNT, params![owner])
                    .row(0)
                    .i64(1)
            })
        }))
    })?;
    let own = shared::get().map_or(here, |shared| here.max(shared.queues_of(owner.to_u32())));
    let role = identifier::quoted(&identity::role_name(owner));
    let most = settings::max_queues_per_role();
    if most > 0 && own >= most {
        return Err(Error::new(
            SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            format!("role {role} has {own} queues, as many as pushy.max_queues_per_role allows"),
        )
        .hint(
            "Drop queues no longer used, or ask a superuser to raise pushy.max_queues_per_role.",
        ));
    }
    let Some(shared) = shared::get() else {
        return Ok(());
    };
    let free = shared.queues_free();
    if share::may_take(own as u64, free) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!("role {role} has {own} queues, and only {free} places are free in the cluster"),
    )
    .detail(format!(
        "A role may have one for four that are free; all {} of the cluster are pushy.max_queues.",
        shared.queues().len()
    ))
    .hint("Drop queues no longer used, or raise pushy.max_queues in postgresql.conf and restart the server."))
}
