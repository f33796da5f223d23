//! Setting a queue aside that cannot run.

use crate::pg::BuiltinOid;

use super::definition::{self, Definition};
use super::fitness;
use crate::errors::{Error, Result, SqlState};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{ereport, identity};
use crate::shared::pending;

static PARK: Plan = Plan::new(
    "UPDATE pushy.queue SET parked = $2 WHERE queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
);

/// Parks the queue, if it still is unfit once its row is locked: whoever resumed it meanwhile has mended
/// what was in the way. No executor tries it again before somebody has looked.
pub fn park(queue: &Definition) -> Result<()> {
    let reason = identity::as_owner(|| {
        let Some(now) = definition::find_for_update(&queue.name)? else {
            return Ok(None);
        };
        identity::accept_changes();
        let unfit = fitness::check(&now).err();
        let reason = unfit
            .filter(|_| now.queue_id == queue.queue_id && now.parked.is_none())
            .map(|unfit| unfit.reason());
        if let Some(reason) = &reason {
            spi::run(&PARK, params![queue.queue_id, reason.as_str()]);
        }
        Ok(reason)
    })?;
    let Some(reason) = reason else {
        return Ok(());
    };
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
