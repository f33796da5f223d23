//! queue_register: what a deploy script says of a queue, as often as it likes.

use crate::pg::Oid;

use super::control::{self, Event};
use super::definition::{self, Definition};
use super::fitness::{self, Unfit};
use super::options::{self, Options};
use super::{handler_name, privilege, publish, restore, share, store};
use crate::errors::{Error, Result, SqlState};
use crate::pg::{database, identifier, identity, text, transaction};
use crate::sql_function;

sql_function!(pushy_queue_register, |call| {
    transaction::require_writable(c"pushy.queue_register()");
    let name = call.text("queue", 0)?;
    let handler = call.text("handler", 1)?;
    check_name(&name)?;
    register(name, &handler, &Options::read(call)?)
});

/// Registers a queue and answers its handler's signature.
fn register(name: String, handler: &str, options: &Options) -> Result<String> {
    if options.concurrency == Some(0) {
        return Err(Error::out_of_range("concurrency", 0, "1 or more")
            .hint("NULL means as many as there are executors; pushy.queue_pause stops a queue."));
    }
    let caller = identity::current_user();
    let mut wanted = options::defaults(name);
    options.apply_to(&mut wanted);
    wanted.owner = caller;
    wanted.owner_name = identity::role_name(caller);
    wanted.home_system = database::system_identifier();
    wanted.home_database = database::current();
    set_role(&mut wanted, options.run_as.unwrap_or(caller))?;
    set_handler(&mut wanted, handler)?;

    // Around again only when somebody else registers or drops the name at this moment.
    const TRIES: usize = 10;
    for _ in 0..TRIES {
        let existing = identity::as_owner(|| definition::find_for_update(&wanted.name))?;
        let written = match existing {
            Some(existing) => replace(existing, &mut wanted)?,
            None => create(&mut wanted)?,
        };
        if written {
            return Ok(wanted.handler);
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
fn create(wanted: &mut Definition) -> Result<bool> {
    require_fit(wanted)?;
    share::require(wanted.owner)?;
    let Some(queue_id) = identity::as_owner(|| Ok(store::insert(wanted)))? else {
        return Ok(false);
    };
    wanted.queue_id = queue_id;
    publish::created(wanted)?;
    control::tell(Event::Register, &wanted.name, None);
    Ok(true)
}

/// Everything is as wanted now, but for the owner and the pause.
fn replace(existing: Definition, wanted: &mut Definition) -> Result<bool> {
    privilege::require_owner(&existing, identity::current_user())?;
    let moves_in = !existing.is_home();
    wanted.queue_id = existing.queue_id;
    wanted.paused = existing.paused;
    wanted.owner = existing.owner;
    wanted.owner_name.clone_from(&existing.owner_name);
    if moves_in {
        restore::find_owner(wanted).map_err(Unfit::into_error)?;
        identity::as_owner(|| restore::find_grantees(wanted.queue_id))?;
    } else {
        wanted.owner_name = identity::role_name(wanted.owner);
    }
    require_fit(wanted)?;
    // A deploy that changes nothing writes nothing and tells nobody.
    if *wanted != existing {
        identity::as_owner(|| {
            store::update(wanted);
            Ok(())
        })?;
        publish::changed(wanted)?;
        control::tell(Event::Register, &wanted.name, None);
    }
    Ok(true)
}

/// The role that runs the jobs: one that the caller may become.
pub fn set_role(queue: &mut Definition, role: Oid) -> Result<()> {
    let caller = identity::current_user();
    let found = identity::role(role).ok_or_else(|| {
        Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!("role with OID {} does not exist", role.to_u32()),
        )
        .hint("Pass the name of a role as run_as.")
    })?;
    if !identity::may_become(caller, role) {
        return Err(Unfit::OwnerMayNotBecome {
            owner: identifier::quoted(&identity::role_name(caller)),
            role: identifier::quoted(&found.name),
        }
        .into_error());
    }
    queue.run_as = role;
    queue.run_as_name = found.name;
    Ok(())
}

/// The function that the caller names.
pub fn set_handler(queue: &mut Definition, handler: &str) -> Result<()> {
    let function = handler_name::resolve(handler)?;
    queue.handler_oid = function.oid;
    queue.handler = function.signature;
    Ok(())
}

/// Refuses a definition that could not run.
pub fn require_fit(queue: &Definition) -> Result<()> {
    fitness::check(queue)
        .and_then(|_| fitness::check_session(queue))
        .map_err(Unfit::into_error)
}

fn check_name(name: &str) -> Result<()> {
    let bytes = text::encode(name).len();
    let allowed = format!(
        "1 to {} bytes without control characters",
        identifier::LIMIT
    );
    if bytes == 0 || bytes > identifier::LIMIT {
        return Err(Error::out_of_range(
            "queue",
            format!("a name of {bytes} bytes"),
            &allowed,
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::out_of_range(
            "queue",
            format!("\"{}\"", name.escape_debug()),
            &allowed,
        ));
    }
    Ok(())
}
