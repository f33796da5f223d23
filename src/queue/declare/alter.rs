//! queue_alter: changes what is said and nothing else.

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::{identifier, identity, transaction, Oid};
use crate::queue::control_channel::{self, Event};
use crate::queue::definition::{self, Definition};
use crate::queue::options::{self, Options};
use crate::queue::register::{hold_handler, require_fit, set_handler, set_role, trust_handler};
use crate::queue::{announce, quota, store};
use crate::sql_function;

sql_function!(pushy_queue_alter_v1, |call| {
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
        options::tell_of_delays(&queue);
    }
    if let Some(role) = options.run_as {
        set_role(&mut queue, role)?;
    }
    if let Some(handler) = &options.handler {
        set_handler(&mut queue, handler)?;
        hold_handler(&mut queue, &existing);
    }
    if let Some(owner) = options.owner {
        set_owner(&mut queue, owner)?;
    }
    if options.run_as.is_some() || options.handler.is_some() || options.owner.is_some() {
        require_home(&queue)?;
        require_fit(&queue)?;
        trust_handler(&mut queue);
        queue.parked = None;
    }
    if queue != existing {
        write(&queue)?;
        control_channel::tell(Event::Alter, name)?;
    }
    Ok(())
}

/// The queue is another role's from here on: of one that the caller may become, as with ALTER TABLE … OWNER TO.
fn set_owner(queue: &mut Definition, owner: Oid) -> Result<()> {
    require_home(queue)?;
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
pub fn find_owned(name: &str) -> Result<Definition> {
    let caller = identity::current_user();
    identity::as_owner(|| definition::lock_owned(name, caller))?
        .ok_or_else(|| Error::no_such_queue(name))
}

/// Writes a changed definition and has everybody told.
pub fn write(queue: &Definition) -> Result<()> {
    identity::as_owner(|| {
        store::update(queue);
        Ok(())
    })?;
    announce::changed(queue);
    Ok(())
}

/// Refuses a queue that came here by a restore or a copy: its roles may be others.
pub fn require_home(queue: &Definition) -> Result<()> {
    if queue.is_home() {
        return Ok(());
    }
    Err(elsewhere(queue))
}

#[cold]
pub fn elsewhere(queue: &Definition) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!(
            "queue \"{}\" was registered in another database or cluster, and does not run here",
            queue.name
        ),
    )
    .hint(format!(
        "Let it run here first: SELECT pushy.queue_resume({}), or register it again.",
        quote_literal(&queue.name)
    ))
}
