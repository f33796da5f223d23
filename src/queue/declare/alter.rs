//! queue_alter: changes what is said and nothing else.

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::{identifier, identity, transaction, Oid};
use crate::queue::control_channel::{self, ControlEvent};
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::eligibility::{self, role_gone, Ineligible};
use crate::queue::options::{self, Options};
use crate::queue::pause::{take_new_names, take_new_names_of_roles};
use crate::queue::register::{
    hold_handler, remember_handler_owner, require_unleased, set_handler, set_role,
};
use crate::queue::{announce, quota, reference, restore, store};
use crate::sql_function;

sql_function!(pushy_queue_alter_v2, |call| {
    transaction::require_writable(c"pushy.queue_alter()");
    let queue = call.text("queue", 0)?;
    alter(&queue, &Options::read_with_owner(call)?)
});

fn alter(name: &str, options: &Options) -> Result<()> {
    let existing = find_owned(name)?;
    let mut queue = existing.clone();
    options.apply_to(&mut queue);
    if options
        .retry_delay_us
        .or(options.max_retry_delay_us)
        .is_some()
    {
        options::notice_delays(&queue);
    }
    let says_what_runs =
        options.run_as.is_some() || options.handler.is_some() || options.owner.is_some();
    if says_what_runs && !has_come_without_roles(&existing) {
        require_home(&queue)?;
    }
    if let Some(role) = options.run_as {
        set_role(&mut queue, role)?;
    }
    if let Some(owner) = options.owner {
        set_owner(&mut queue, owner)?;
    }
    if says_what_runs && !queue.is_home() {
        // With the roles that were missing it is at home here, and still waits for queue_resume.
        restore::find_roles(&mut queue.clone())
            .map_err(|ineligible| refused(ineligible, &queue, &existing))?;
        restore::make_home(&mut queue)?;
        queue.paused = true;
    } else if says_what_runs {
        // As with queue_resume, its owner's call says that what was renamed or created again is the same.
        take_new_names_of_roles(&mut queue);
        if options.handler.is_none() {
            take_new_names(&mut queue)?;
        }
    }
    if let Some(handler) = &options.handler {
        require_unleased(&existing)?;
        set_handler(&mut queue, handler)?;
        hold_handler(&mut queue, &existing);
    }
    if says_what_runs {
        eligibility::check_declared(&queue)
            .map_err(|ineligible| refused(ineligible, &queue, &existing))?;
        remember_handler_owner(&mut queue);
        queue.parked = None;
    }
    if queue != existing {
        write(&queue)?;
        if queue.owner != existing.owner {
            identity::as_owner(|| reference::take_up(&queue))?;
        }
        control_channel::publish(ControlEvent::Alter, name)?;
    }
    Ok(())
}

/// A queue that a restore or a copy has brought here, without its owner or the role that ran its jobs: it cannot be resumed
/// with others but here.
fn has_come_without_roles(queue: &QueueDefinition) -> bool {
    !queue.is_home() && restore::find_roles(&mut queue.clone()).is_err()
}

/// The error of a queue that would not be eligible as the call says it; its hint has what the call has, and what it lacks.
fn refused(ineligible: Ineligible, queue: &QueueDefinition, existing: &QueueDefinition) -> Error {
    match ineligible {
        Ineligible::RoleGone { .. } => role_gone::run_as(queue, existing),
        Ineligible::OwnerGone { .. } => role_gone::owner(queue, existing),
        ineligible => ineligible,
    }
    .into_error()
}

/// The queue is another role's from here on: of one that the caller may become, as with ALTER TABLE … OWNER TO.
fn set_owner(queue: &mut QueueDefinition, owner: Oid) -> Result<()> {
    let role = identity::role(owner).ok_or_else(|| {
        Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("role with OID {} does not exist", owner.to_u32()),
        )
        .hint("Pass the name of a role as owner.")
    })?;
    if owner == queue.owner {
        return Ok(());
    }
    if !identity::may_become(identity::current_user(), owner) {
        let name = identifier::quoted(&role.name);
        return Err(Error::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!(
                "queue \"{}\" cannot be given to role {name}: you may not become that role",
                queue.name
            ),
        )
        .hint(format!(
            "Become a member of it (GRANT {name} TO …), or ask a superuser."
        )));
    }
    quota::require(owner)?;
    queue.owner = owner;
    queue.owner_name = role.name;
    Ok(())
}

/// The queue, its row locked, if the caller has its owner's rights.
pub fn find_owned(name: &str) -> Result<QueueDefinition> {
    let caller = identity::current_user();
    match identity::as_owner(|| definition::lock_owned(name, caller))? {
        Some(queue) => Ok(queue),
        None => Err(definition::no_such(name)?),
    }
}

/// Writes a changed definition, and announces it to all.
pub fn write(queue: &QueueDefinition) -> Result<()> {
    identity::as_owner(|| {
        store::update(queue);
        Ok(())
    })?;
    announce::changed(queue);
    Ok(())
}

/// Refuses a queue that came here by a restore or a copy: its roles may be others.
pub fn require_home(queue: &QueueDefinition) -> Result<()> {
    if queue.is_home() {
        return Ok(());
    }
    Err(elsewhere(queue))
}

#[cold]
pub fn elsewhere(queue: &QueueDefinition) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "queue \"{}\" came here by a restore or a copy of the database, and does not run",
            queue.name
        ),
    )
    .hint(format!(
        "Let it run here first: SELECT pushy.queue_resume({}), or register it again.",
        quote_literal(&queue.name)
    ))
}
