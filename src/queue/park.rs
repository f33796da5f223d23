//! Setting a queue aside that cannot run.

use pgrx::pg_sys::BuiltinOid;

use super::definition::Definition;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{ereport, identity};
use crate::shared::pending;

static PARK: Plan = Plan::new(
    "UPDATE pushy.queue SET parked = $2 WHERE queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
);

/// Parks the queue: no executor tries it again before somebody has looked.
pub fn park(queue: &Definition, reason: &str) -> Result<()> {
    identity::as_owner(|| {
        spi::run(&PARK, params![queue.queue_id, reason]);
        Ok(())
    })?;
    let mut facts = queue.facts();
    facts.runnable = false;
    pending::defined(facts);
    let error = Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("queue \"{}\" is parked: {reason}", queue.name),
    )
    .hint("pushy.queue_explain tells what to do; then run pushy.queue_resume.");
    ereport::log(&error);
    Ok(())
}
