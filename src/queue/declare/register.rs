//! queue_register: what a deploy script says of a queue, as often as it likes.

use crate::pg::Oid;

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::name_lock::{self, Named};
use crate::pg::object_lock::LockMode;
use crate::pg::{ereport, function_catalog as functions, home, identifier, identity, transaction};
use crate::queue::control_channel::{self, ControlEvent};
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::eligibility::{self, Ineligible};
use crate::queue::options::{self, Options};
use crate::queue::{announce, handler_name, leased, privilege, quota, reference, restore, store};
use crate::sql_function;

sql_function!(pushy_queue_register_v2, |call| {
    transaction::require_writable(c"pushy.queue_register()");
    let name = call.text("queue", 0)?;
    identifier::require_name("queue", &name)?;
    register(name, &Options::read(call)?)
});

/// Registers a queue and answers its handler's signature, None where workers outside do its jobs.
fn register(name: String, options: &Options) -> Result<Option<String>> {
    let caller = identity::current_user();
    let mut wanted = options::defaults(name);
    options.apply_to(&mut wanted);
    wanted.owner = caller;
    wanted.owner_name = identity::role_name(caller);
    set_role(&mut wanted, options.run_as.unwrap_or(caller))?;
    if let Some(handler) = &options.handler {
        let name = wanted.name.clone();
        set_handler(&mut wanted, handler).map_err(|error| with_order(&name, handler, error))?;
    }
    options::notice_delays(&wanted);

    // Around again only when somebody else registers or drops the name at this moment.
    const TRIES: usize = 10;
    let may = |existing: &QueueDefinition| {
        privilege::require_owner(existing, caller)
            .map_err(|_| Error::queue_name_taken(&existing.name, &owner_of(existing)))?;
        Ok(true)
    };
    for _ in 0..TRIES {
        let existing = identity::as_owner(|| definition::find_for_update(&wanted.name, may))?;
        let written = match existing {
            Some(existing) => replace(&existing, &mut wanted)?,
            None => create(&mut wanted)?,
        };
        if written {
            return Ok((!wanted.is_outside()).then_some(wanted.handler));
        }
    }
    Err(Error::new(
        SqlState::LOCK_NOT_AVAILABLE,
        format!(
            "queue \"{}\" is registered and dropped by others",
            wanted.name
        ),
    )
    .hint("Try again."))
}

/// False: somebody else was quicker.
fn create(wanted: &mut QueueDefinition) -> Result<bool> {
    require_eligible(wanted)?;
    name_lock::take(Named::Queue, wanted.name.as_bytes(), LockMode::Alone)?;
    if identity::as_owner(|| definition::find(&wanted.name))?.is_some() {
        return Ok(false);
    }
    quota::require(wanted.owner)?;
    remember_handler_owner(wanted);
    restore::begin_here(wanted);
    let Some(queue_id) = identity::as_owner(|| store::insert(wanted))? else {
        return Ok(false);
    };
    wanted.queue_id = queue_id;
    identity::as_owner(|| reference::take_up(wanted))?;
    announce::created(wanted)?;
    control_channel::publish(ControlEvent::Register, &wanted.name)?;
    Ok(true)
}

/// Everything is as wanted now, but for the owner and the pause; the caller has the owner's rights.
fn replace(existing: &QueueDefinition, wanted: &mut QueueDefinition) -> Result<bool> {
    let caller = identity::current_user();
    wanted.queue_id = existing.queue_id;
    wanted.paused = existing.paused;
    wanted.owner = existing.owner;
    wanted.owner_name.clone_from(&existing.owner_name);
    wanted.home_system = existing.home_system;
    wanted.home_database = existing.home_database;
    if !existing.is_home() {
        if restore::find_owner(wanted, existing.home_system).is_err() {
            // As below.
            wanted.owner = caller;
        }
        restore::come_home(existing, wanted)?;
    } else if identity::role(existing.owner).is_none() {
        // Nobody but a superuser comes here then, and takes it over.
        wanted.owner = caller;
    }
    wanted.owner_name = identity::role_name(wanted.owner);
    if !wanted.is_outside() {
        require_unleased(existing)?;
    }
    hold_handler(wanted, existing);
    require_eligible(wanted)?;
    remember_handler_owner(wanted);
    // A deploy that changes nothing writes nothing and announces nothing.
    if wanted != existing {
        identity::as_owner(|| {
            store::update(wanted);
            reference::take_up(wanted)
        })?;
        announce::changed(wanted);
        control_channel::publish(ControlEvent::Register, &wanted.name)?;
        // One that was renamed is the same.
        let is_same = existing.is_home() && wanted.handler_oid == existing.handler_oid;
        if wanted.handler != existing.handler && !is_same {
            notice_other_handler(existing, wanted);
        }
    }
    Ok(true)
}

/// Refuses a handler for a queue whose jobs workers outside do just now: no queue is done by both. Waits for claims that have not
/// ended, and those that come wait until this transaction has.
pub fn require_unleased(queue: &QueueDefinition) -> Result<()> {
    if !queue.is_outside() {
        return Ok(());
    }
    let count = identity::as_owner(|| {
        leased::lock(queue.queue_id, LockMode::Alone)?;
        leased::count(queue.queue_id)
    })?;
    if count == 0 {
        return Ok(());
    }
    let name = &queue.name;
    let jobs = if count == 1 {
        "1 job of it is".to_owned()
    } else {
        format!("{count} jobs of it are")
    };
    Err(Error::new(
        SqlState::OBJECT_IN_USE,
        format!("queue \"{name}\" cannot be given a handler now: {jobs} leased to workers outside"),
    )
    .hint("Pause it with pushy.queue_pause, wait until pushy.leases shows none of it, try again, and pushy.queue_resume it; or give the handler a queue of its own."))
}

fn owner_of(queue: &QueueDefinition) -> String {
    home::role(queue.home_system, queue.owner, &queue.owner_name)
        .map_or_else(|| queue.owner_name.clone(), identity::role_name)
}

/// The queue may be another application's, which has chosen the same name.
fn notice_other_handler(existing: &QueueDefinition, wanted: &QueueDefinition) {
    let (name, now) = (&wanted.name, &wanted.handler);
    let message = if wanted.is_outside() {
        format!(
            "jobs of queue \"{name}\" wait for workers outside now, and {} no longer runs",
            existing.handler
        )
    } else if existing.is_outside() {
        format!("queue \"{name}\" runs {now} now, and no longer waits for workers outside")
    } else {
        format!(
            "queue \"{name}\" runs {now} now, and no longer {}",
            existing.handler
        )
    };
    ereport::notice(
        &Error::new(SqlState::SUCCESSFUL_COMPLETION, message)
            .hint("Queues are named once per database: if the other handler is another application's or tenant's, give each a name of its own."),
    );
}

/// The role that runs the jobs: one that the caller may become.
pub fn set_role(queue: &mut QueueDefinition, role: Oid) -> Result<()> {
    let caller = identity::current_user();
    let found = identity::role(role).ok_or_else(|| {
        Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("role with OID {} does not exist", role.to_u32()),
        )
        .hint("Pass the name of a role as run_as.")
    })?;
    if !identity::may_become(caller, role) {
        return Err(Ineligible::OwnerMayNotBecome {
            owner: identifier::quoted(&identity::role_name(caller)),
            role: identifier::quoted(&found.name),
            superuser: found.superuser,
        }
        .into_error());
    }
    queue.run_as = role;
    queue.run_as_name = found.name;
    Ok(())
}

/// What looks like a handler where the queue's name is due was meant as one.
fn with_order(name: &str, handler: &str, error: Error) -> Error {
    if !name.ends_with(')') || handler.ends_with(')') {
        return error;
    }
    error.hint(format!(
        "The queue's name comes first: pushy.queue_register({}, {})",
        quote_literal(handler),
        quote_literal(name)
    ))
}

/// The function that the caller names.
pub fn set_handler(queue: &mut QueueDefinition, handler: &str) -> Result<()> {
    let function = handler_name::resolve(handler)?;
    queue.handler_oid = function.oid;
    queue.handler = function.signature;
    queue.handler_owner = function.owner;
    Ok(())
}

/// A handler of the name that the queue's handler had is held to its owner too: the name may be a stranger's by now.
pub fn hold_handler(queue: &mut QueueDefinition, existing: &QueueDefinition) {
    if queue.handler != existing.handler {
        return;
    }
    queue
        .handler_owner_name
        .clone_from(&existing.handler_owner_name);
    queue.handler_owner = if existing.is_home() {
        existing.handler_owner
    } else {
        let (owner, name) = (existing.handler_owner, &existing.handler_owner_name);
        home::role(existing.home_system, owner, name).unwrap_or(Oid::INVALID)
    };
}

/// Remembers whose code the handler is now, once the queue was found fit to run it.
pub fn remember_handler_owner(queue: &mut QueueDefinition) {
    if let Some(function) = functions::function(queue.handler_oid) {
        queue.handler_owner = function.owner;
        queue.handler_owner_name = identity::role_name(function.owner);
    }
}

/// Refuses a definition that could not run.
pub fn require_eligible(queue: &QueueDefinition) -> Result<()> {
    eligibility::check_declared(queue).map_err(Ineligible::into_error)
}
