//! queue_pause and queue_resume.

use crate::errors::Result;
use crate::pg::{function_catalog as functions, identity, transaction};
use crate::queue::alter::{find_owned, write};
use crate::queue::control_channel::{self, ControlEvent};
use crate::queue::definition::QueueDefinition;
use crate::queue::register::{remember_handler_owner, require_eligible};
use crate::queue::{announce, handler_name, restore};
use crate::sql_function;

sql_function!(pushy_queue_pause_v1, |call| {
    transaction::require_writable(c"pushy.queue_pause()");
    let name = call.text("queue", 0)?;
    let mut queue = find_owned(&name)?;
    // One that changes nothing announces nothing.
    if !std::mem::replace(&mut queue.paused, true) {
        write(&queue)?;
        control_channel::publish(ControlEvent::Pause, &name)?;
    }
    Ok(())
});

sql_function!(pushy_queue_resume_v1, |call| {
    transaction::require_writable(c"pushy.queue_resume()");
    let name = call.text("queue", 0)?;
    let existing = find_owned(&name)?;
    let mut queue = existing.clone();
    if queue.is_home() {
        take_new_names(&mut queue)?;
    } else {
        restore::make_home(&mut queue)?;
    }
    require_eligible(&queue)?;
    remember_handler_owner(&mut queue);
    queue.paused = false;
    queue.parked = None;
    if queue != existing {
        write(&queue)?;
        control_channel::publish(ControlEvent::Resume, &name)?;
    } else {
        announce::changed(&queue);
    }
    Ok(())
});

/// Roles and handler may have been renamed, and the handler dropped and created again: its owner's call
/// to resume says that it is still the same.
pub fn take_new_names(queue: &mut QueueDefinition) -> Result<()> {
    take_new_names_of_roles(queue);
    if queue.is_outside() {
        return Ok(());
    }
    let function = match functions::function(queue.handler_oid) {
        Some(function) => Some(function),
        None => handler_name::by_stored_signature(&queue.handler)?,
    };
    if let Some(function) = function {
        queue.handler_oid = function.oid;
        queue.handler = function.signature;
    }
    Ok(())
}

pub fn take_new_names_of_roles(queue: &mut QueueDefinition) {
    if let Some(owner) = identity::role(queue.owner) {
        queue.owner_name = owner.name;
    }
    if let Some(role) = identity::role(queue.run_as) {
        queue.run_as_name = role.name;
    }
}
