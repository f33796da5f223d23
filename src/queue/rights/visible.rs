//! Which queues the current user sees; the filter of the views.

use std::collections::HashMap;
use std::rc::Rc;

use crate::errors::{Result, SqlState};
use crate::pg::identity;
use crate::queue::cache::{self, Known};
use crate::queue::definition::{self, Definition};
use crate::queue::privilege::{self, Grant, Privilege};
use crate::sql_function;

/// The queues on which the current user has a privilege.
pub fn with(wanted: Privilege) -> Result<Vec<Definition>> {
    let (queues, mut grants) = identity::as_owner(|| {
        let queues = definition::all()?;
        Ok((queues, privilege::all_grants()?))
    })?;
    let caller = identity::current_user();
    Ok(queues
        .into_iter()
        .filter(|queue| {
            let grants: Vec<Grant> = grants.remove(&queue.queue_id).unwrap_or_default();
            privilege::has(queue, &grants, caller, wanted)
        })
        .collect())
}

/// The same by number.
pub fn by_id(wanted: Privilege) -> Result<HashMap<i32, Definition>> {
    let queues = with(wanted)?;
    Ok(queues.into_iter().map(|q| (q.queue_id, q)).collect())
}

/// The queue, if the current user has one of the privileges. One that a view still sees, and that is
/// dropped by now, is nobody's.
pub fn known(queue: &str, wanted: &[Privilege]) -> Result<Option<Rc<Known>>> {
    let known = match cache::get_of_many(queue) {
        Ok(known) => known,
        Err(error) if error.sqlstate == SqlState::UNDEFINED_OBJECT => return Ok(None),
        Err(error) => return Err(error),
    };
    let caller = identity::current_user();
    let has = |privilege| privilege::has(&known.definition, &known.grants, caller, privilege);
    let may = wanted.iter().any(|privilege| has(*privilege));
    Ok(may.then_some(known))
}

fn has_any(queue: &str, wanted: &[Privilege]) -> Result<bool> {
    Ok(known(queue, wanted)?.is_some())
}

sql_function!(pushy_queue_visible_v1, |call| has_any(
    &call.text("queue", 0)?,
    &Privilege::ALL
));

sql_function!(pushy_queue_monitored_v1, |call| has_any(
    &call.text("queue", 0)?,
    &[Privilege::Monitor]
));

sql_function!(pushy_queue_owned_v1, |call| {
    let owner = known(&call.text("queue", 0)?, &Privilege::ALL)?;
    Result::Ok(
        owner.is_some_and(|known| privilege::is_owner(&known.definition, identity::current_user())),
    )
});
