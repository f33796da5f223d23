//! queue_pause and queue_resume.

use crate::errors::Result;
use crate::pg::{function_catalog as functions, identity, transaction};
use crate::queue::alter::{find_owned, write};
use crate::queue::control_channel::{self, Event};
use crate::queue::definition::Definition;
use crate::queue::register::{require_fit, trust_handler};
use crate::queue::{announce, handler_name, restore};
use crate::sql_function;

sql_function!(pushy_queue_pause_v1, |call| {
    transaction::require_writable(c"pushy.queue_pause()");
    let name = call.text("queue", 0)?;
    let mut queue = find_owned(&name)?;
    // One that changes nothing tells nobody.
    if !std::mem::replace(&mut queue.paused, true) {
        write(&queue)?;
        control_channel::tell(Event::Pause, &name)?;
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
        restore::settle(&mut queue)?;
    }
    require_fit(&queue)?;
    trust_handler(&mut queue);
    queue.paused = false;
    queue.parked = None;
    if queue != existing {
        write(&queue)?;
        control_channel::tell(Event::Resume, &name)?;
    } else {
        announce::changed(&queue);
    }
    Ok(())
});

/// Roles and handler may have been renamed, and the handler dropped and created again: its owner's call
/// to resume says that it is still the same.
pub fn take_new_names(queue: &mut Definition) -> Result<()> {
    take_new_names_of_roles(queue);
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

pub fn take_new_names_of_roles(queue: &mut Definition) {
    if let Some(owner) = identity::role(queue.owner) {
        queue.owner_name = owner.name;
    }
    if let Some(role) = identity::role(queue.run_as) {
        queue.run_as_name = role.name;
    }
}
