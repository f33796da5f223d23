//! Which queues the current user sees; the filter of the views.

use std::collections::HashMap;
use std::rc::Rc;

use crate::errors::{Error, Result};
use crate::pg::function::Call;
use crate::pg::identity;
use crate::queue::cache::{self, CachedQueue};
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::privilege::{self, Grant, Privilege};
use crate::sql_function;

/// The queues on which the current user has a privilege.
pub fn with(wanted: Privilege) -> Result<Vec<QueueDefinition>> {
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
pub fn by_id(wanted: Privilege) -> Result<HashMap<i32, QueueDefinition>> {
    let queues = with(wanted)?;
    Ok(queues.into_iter().map(|q| (q.queue_id, q)).collect())
}

/// The queue of this number, if the current user has one of the privileges, as of now: the rows of a view may be of an older
/// snapshot, when another's queue had a name that is the caller's now. One that such a view still sees, and that is dropped by
/// now, is nobody's.
pub fn queue(queue_id: i32, wanted: &[Privilege]) -> Result<Option<Rc<CachedQueue>>> {
    // A cursor that goes on takes no lock by which it would hear of a role's membership that was revoked.
    identity::accept_changes();
    let Some(cached) = cache::get_of_many(queue_id)? else {
        return Ok(None);
    };
    let caller = identity::current_user();
    let has = |privilege| privilege::has(&cached.definition, &cached.grants, caller, privilege);
    let may = wanted.iter().any(|privilege| has(*privilege));
    Ok(may.then_some(cached))
}

/// The argument of the functions behind the views.
pub fn asked(call: Call) -> Result<i32> {
    let queue_id = call.opt_i32(0);
    queue_id.ok_or_else(|| Error::null_argument("queue_id"))
}

fn has_any(queue_id: i32, wanted: &[Privilege]) -> Result<bool> {
    Ok(queue(queue_id, wanted)?.is_some())
}

sql_function!(pushy_queue_visible_v1, |call| has_any(
    asked(call)?,
    &Privilege::ALL
));

sql_function!(pushy_queue_monitored_v1, |call| has_any(
    asked(call)?,
    &[Privilege::Monitor]
));

sql_function!(pushy_queue_owned_v1, |call| {
    let owner = queue(asked(call)?, &Privilege::ALL)?;
    Result::Ok(
        owner.is_some_and(|cached| {
            privilege::is_owner(&cached.definition, identity::current_user())
        }),
    )
});
