//! Whether a queue can run at this moment: may this role run this handler, for this owner?
//!
//! One answer for all who ask: queue_register refuses what does not pass, an executor looks before its
//! batches and parks the queue, queue_explain says it. Catalog look-ups only: no rights are needed.

pub mod ineligible;
pub mod role_gone;

use crate::pg::function_catalog::{self as functions, Function};
use crate::pg::{database, identifier, identity, major, worker, BuiltinOid, Oid};
use crate::queue::definition::QueueDefinition;
pub use crate::queue::ineligible::Ineligible;

/// What a handler wants to be called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandlerArgument {
    /// The job's arguments.
    Jsonb,
    /// The whole job, as pushy.job.
    Job,
    Nothing,
}

/// A function that can be called as a handler.
#[derive(Clone, Copy, Debug)]
pub struct Handler {
    pub oid: Oid,
    pub argument: HandlerArgument,
    pub returns: Oid,
    /// CALLed, in transactions of its own.
    pub is_procedure: bool,
}

/// Whether a queue can be declared like this: with a handler that its role may run in a session, or for workers outside.
pub fn check_declared(queue: &QueueDefinition) -> Result<(), Ineligible> {
    if queue.is_outside() {
        return check_roles(queue);
    }
    check(queue)?;
    check_session(queue)
}

/// What has to be called for a queue's jobs, or why that must not be done now.
pub fn check(queue: &QueueDefinition) -> Result<Handler, Ineligible> {
    check_roles(queue)?;
    if queue.is_outside() {
        return Err(Ineligible::Outside {
            queue: queue.name.clone(),
        });
    }
    let function = find_function(queue)?;
    check_function(queue, &function)
}

/// Whether a function can be the queue's handler: its form, the role's rights and whose code it is.
fn check_function(queue: &QueueDefinition, function: &Function) -> Result<Handler, Ineligible> {
    let handler = form_of_handler(function)?;
    check_rights(queue, function)?;
    check_handler_owner(queue, function)?;
    Ok(handler)
}

/// Whether the handler's code still belongs to whom it belonged when it was chosen, or to somebody who could act as
/// the queue's role anyway.
fn check_handler_owner(queue: &QueueDefinition, function: &Function) -> Result<(), Ineligible> {
    if function.owner == queue.handler_owner || identity::may_become(function.owner, queue.run_as) {
        return Ok(());
    }
    Err(Ineligible::HandlerOfAnother {
        handler: function.signature.clone(),
        owner: identifier::quoted(&identity::role_name(function.owner)),
        was: identifier::quoted(&queue.handler_owner_name),
        role: identifier::quoted(&queue.run_as_name),
    })
}

/// Whether a worker can open a session as the queue's role at all; without that nobody gets to `check`.
pub fn check_session(queue: &QueueDefinition) -> Result<(), Ineligible> {
    session_as(database::current(), &run_as(queue)?)
}

/// Whether the queue's role may have this session of an executor, however many there are: the executor leaves otherwise.
pub fn check_entry(queue: &QueueDefinition) -> Result<(), Ineligible> {
    let role = run_as(queue)?;
    entry_as(database::current(), &role)?;
    if worker::is_outdated() {
        return Err(Ineligible::SessionOutdated {
            role: identifier::quoted(&role.name),
        });
    }
    Ok(())
}

/// The same for a role and a database by number.
pub fn session_of(database: u32, role: u32) -> Result<(), Ineligible> {
    let found = identity::role(Oid::from(role)).ok_or_else(|| Ineligible::RoleGone {
        role: role.to_string(),
        fix: "pushy.queue_explain says which role could take its place".to_owned(),
    })?;
    session_as(database, &found)
}

fn session_as(database: u32, role: &identity::Role) -> Result<(), Ineligible> {
    entry_as(database, role)?;
    let limits = database::limits(database);
    if identity::has_too_many_sessions(role) {
        return Err(Ineligible::TooManySessions {
            role: identifier::quoted(&role.name),
            limit: role.connection_limit,
        });
    }
    if !role.superuser && database::has_too_many_sessions(database, &limits) {
        return Err(Ineligible::DatabaseFull {
            database: identifier::quoted(&database::name(database).unwrap_or_default()),
            limit: limits.connections,
        });
    }
    Ok(())
}

fn entry_as(database: u32, role: &identity::Role) -> Result<(), Ineligible> {
    let name = || identifier::quoted(&database::name(database).unwrap_or_default());
    let role_name = || identifier::quoted(&role.name);
    let limits = database::limits(database);
    if !limits.allows_connections {
        return Err(Ineligible::DatabaseClosed { database: name() });
    }
    if !role.login && !major::WORKERS_MAY_BE_NOLOGIN {
        return Err(Ineligible::NoLogin { role: role_name() });
    }
    if !identity::may_connect(database, role.oid) {
        return Err(Ineligible::NoConnect {
            role: role_name(),
            database: name(),
        });
    }
    Ok(())
}

/// The queue's role as it is now, if it still is the role that was meant.
fn run_as(queue: &QueueDefinition) -> Result<identity::Role, Ineligible> {
    let role = identity::role(queue.run_as).ok_or_else(|| role_gone::run_as(queue, queue))?;
    if role.name != queue.run_as_name {
        return Err(Ineligible::RoleRenamed {
            queue: queue.name.clone(),
            role: identifier::quoted(&queue.run_as_name),
            now: identifier::quoted(&role.name),
        });
    }
    Ok(role)
}

fn check_roles(queue: &QueueDefinition) -> Result<(), Ineligible> {
    let role = run_as(queue)?;
    let owner = identity::role(queue.owner).ok_or_else(|| role_gone::owner(queue, queue))?;
    if owner.name != queue.owner_name {
        return Err(Ineligible::OwnerRenamed {
            queue: queue.name.clone(),
            owner: identifier::quoted(&queue.owner_name),
            now: identifier::quoted(&owner.name),
        });
    }
    if !identity::may_become(queue.owner, queue.run_as) {
        return Err(Ineligible::OwnerMayNotBecome {
            owner: identifier::quoted(&owner.name),
            role: identifier::quoted(&role.name),
            superuser: role.superuser,
        });
    }
    Ok(())
}

fn find_function(queue: &QueueDefinition) -> Result<Function, Ineligible> {
    let function = functions::function(queue.handler_oid).ok_or_else(|| handler_gone(queue))?;
    if function.signature != queue.handler {
        return Err(Ineligible::HandlerRenamed {
            queue: queue.name.clone(),
            handler: queue.handler.clone(),
            now: function.signature,
        });
    }
    Ok(function)
}

/// A migration that changes what a function returns drops it and creates it again, and so does a restore: it may be another
/// function now, so its owner says that it is meant, once it is one that could run.
#[cold]
fn handler_gone(definition: &QueueDefinition) -> Ineligible {
    let (queue, handler) = (definition.name.clone(), definition.handler.clone());
    match functions::named(&definition.handler) {
        Ok(Some(function)) => check_function(definition, &function)
            .err()
            .unwrap_or(Ineligible::HandlerRecreated { queue, handler }),
        _ => Ineligible::HandlerGone { queue, handler },
    }
}

/// Whether the handler was dropped and created again, and nobody has said that the new one is meant.
pub fn is_recreated(queue: &QueueDefinition) -> bool {
    functions::function(queue.handler_oid).is_none()
        && matches!(functions::named(&queue.handler), Ok(Some(_)))
}

/// Whether a function has the form of a handler.
pub fn form_of_handler(function: &Function) -> Result<Handler, Ineligible> {
    let handler = function.signature.clone();
    if functions::is_temporary_schema(function.schema) {
        return Err(Ineligible::Temporary { handler });
    }
    match function.kind {
        b'f' => {}
        b'p' => check_procedure(function)?,
        _ => return Err(Ineligible::NotAFunction { handler }),
    }
    let argument = match function.arguments.as_slice() {
        [] => HandlerArgument::Nothing,
        [one] if *one == BuiltinOid::JSONBOID.value() => HandlerArgument::Jsonb,
        [one] if Some(*one) == functions::job_type() => HandlerArgument::Job,
        _ => return Err(Ineligible::WrongArguments { handler }),
    };
    if function.returns_set {
        return Err(Ineligible::ReturnsSet { handler });
    }
    let returns = function.returns;
    if functions::is_pseudo_type(returns)
        && ![BuiltinOid::VOIDOID, BuiltinOid::RECORDOID]
            .iter()
            .any(|one| one.value() == returns)
    {
        return Err(Ineligible::ReturnsPseudoType {
            handler,
            returns: functions::type_name(returns),
        });
    }
    Ok(Handler {
        oid: function.oid,
        argument,
        returns,
        is_procedure: function.kind == b'p',
    })
}

/// Whether a procedure may end transactions: the server lets none that acts as its owner, or with settings of its own
/// (ExecuteCallStmt in functioncmds.c).
fn check_procedure(function: &Function) -> Result<(), Ineligible> {
    let handler = || function.signature.clone();
    if function.is_of_definer {
        return Err(Ineligible::ProcedureOfDefiner { handler: handler() });
    }
    if function.has_settings {
        return Err(Ineligible::ProcedureWithSettings { handler: handler() });
    }
    if function.returns != BuiltinOid::VOIDOID.value() {
        return Err(Ineligible::ProcedureAnswers { handler: handler() });
    }
    Ok(())
}

/// Whether the queue's role may run the function, and may trust it.
fn check_rights(queue: &QueueDefinition, function: &Function) -> Result<(), Ineligible> {
    let role = || identifier::quoted(&queue.run_as_name);
    let handler = || function.signature.clone();
    if !identity::may_use_schema(function.schema, queue.run_as) {
        return Err(Ineligible::NoSchemaUsage {
            role: role(),
            schema: functions::schema_name(function.schema),
            handler: handler(),
        });
    }
    if !identity::may_execute(function.oid, queue.run_as) {
        return Err(Ineligible::NoExecute {
            role: role(),
            handler: handler(),
            is_procedure: function.kind == b'p',
        });
    }
    if identity::is_superuser(queue.run_as) && !identity::is_superuser(function.owner) {
        return Err(Ineligible::SuperuserRunsForeignHandler {
            role: role(),
            handler: handler(),
            owner: identifier::quoted(&identity::role_name(function.owner)),
        });
    }
    Ok(())
}
