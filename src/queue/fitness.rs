//! Whether a queue can run at this moment: may this role run this handler, for this owner?
//!
//! One answer for all who ask: queue_register refuses what does not pass, an executor looks before its
//! batches and parks the queue, queue_explain says it. Catalog look-ups only: no rights are needed.

use super::definition::Definition;
use crate::errors::{quote_literal, Error, SqlState};
use crate::pg::function_catalog::{self as functions, Function};
use crate::pg::{database, identifier, identity, BuiltinOid, Oid};

/// What a handler wants to be called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
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
    pub takes: Takes,
    pub returns: Oid,
}

/// Why a queue's jobs cannot be run. Names are as SQL wants them written.
#[derive(Clone, Debug)]
pub enum Unfit {
    HandlerGone {
        queue: String,
        handler: String,
    },
    HandlerRenamed {
        queue: String,
        handler: String,
        now: String,
    },
    Temporary {
        handler: String,
    },
    Procedure {
        handler: String,
    },
    NotAFunction {
        handler: String,
    },
    WrongArguments {
        handler: String,
    },
    ReturnsSet {
        handler: String,
    },
    ReturnsPseudoType {
        handler: String,
        returns: String,
    },
    RoleGone {
        queue: String,
        role: String,
    },
    RoleRenamed {
        queue: String,
        role: String,
        now: String,
    },
    OwnerGone {
        queue: String,
        owner: String,
    },
    OwnerRenamed {
        queue: String,
        owner: String,
        now: String,
    },
    OwnerMayNotBecome {
        owner: String,
        role: String,
    },
    NoSchemaUsage {
        role: String,
        schema: String,
        handler: String,
    },
    NoExecute {
        role: String,
        handler: String,
    },
    SuperuserRunsForeignHandler {
        role: String,
        handler: String,
        owner: String,
    },
    NoLogin {
        role: String,
    },
    NoConnect {
        role: String,
        database: String,
    },
    TooManySessions {
        role: String,
        limit: i32,
    },
    DatabaseClosed {
        database: String,
    },
    DatabaseFull {
        database: String,
        limit: i32,
    },
}

impl Unfit {
    /// What is in the way, in PostgreSQL's style of messages.
    pub fn reason(&self) -> String {
        match self {
            Self::HandlerGone { handler, .. } => format!("handler {handler} does not exist"),
            Self::HandlerRenamed { handler, now, .. } => {
                format!("handler {handler} is now {now}")
            }
            Self::Temporary { handler } => {
                format!("handler {handler} is temporary: no worker can see it")
            }
            Self::Procedure { handler } => {
                format!("procedures as handlers are not supported yet: {handler}")
            }
            Self::NotAFunction { handler } => {
                format!("handler {handler} is an aggregate or a window function")
            }
            Self::WrongArguments { handler } => {
                format!("handler {handler} takes the wrong arguments")
            }
            Self::ReturnsSet { handler } => format!("handler {handler} returns a set"),
            Self::ReturnsPseudoType { handler, returns } => {
                format!("handler {handler} returns {returns}, which is no result of a job")
            }
            Self::RoleGone { role, .. } => format!("role {role} does not exist"),
            Self::RoleRenamed { role, now, .. } => {
                format!("role {role} of the queue is now {now}")
            }
            Self::OwnerGone { owner, .. } => format!("the queue's owner {owner} does not exist"),
            Self::OwnerRenamed { owner, now, .. } => {
                format!("the queue's owner {owner} is now {now}")
            }
            Self::OwnerMayNotBecome { owner, role } => {
                format!("role {owner} may not become role {role}")
            }
            Self::NoSchemaUsage {
                role,
                schema,
                handler,
            } => format!("role {role} has no USAGE on schema {schema} of handler {handler}"),
            Self::NoExecute { role, handler } => {
                format!("role {role} may not execute handler {handler}")
            }
            Self::SuperuserRunsForeignHandler {
                role,
                handler,
                owner,
            } => format!(
                "superuser {role} would run handler {handler}, which {owner} owns and can replace at any time"
            ),
            Self::NoLogin { role } => format!("role {role} is not permitted to log in"),
            Self::NoConnect { role, database } => {
                format!("role {role} may not connect to database {database}")
            }
            Self::TooManySessions { role, limit } => {
                format!("role {role} has more sessions than its connection limit of {limit}")
            }
            Self::DatabaseClosed { database } => {
                format!("database {database} does not accept connections")
            }
            Self::DatabaseFull { database, limit } => {
                format!("database {database} has more sessions than its connection limit of {limit}")
            }
        }
    }

    /// What to do about it: the statement, where one will do.
    pub fn fix(&self) -> String {
        match self {
            Self::HandlerGone { queue, handler } => format!(
                "Create {handler} again and run SELECT pushy.queue_resume({}), or name another handler with pushy.queue_alter or pushy.queue_register",
                quote_literal(queue)
            ),
            // Said by the owner, it takes the new name.
            Self::HandlerRenamed { queue, .. }
            | Self::RoleRenamed { queue, .. }
            | Self::OwnerRenamed { queue, .. } => {
                format!("SELECT pushy.queue_resume({})", quote_literal(queue))
            }
            Self::Temporary { .. } => {
                "Create the handler in a schema that stays".to_owned()
            }
            Self::Procedure { .. } => {
                "Use a function: it runs in the transaction that completes the job".to_owned()
            }
            Self::NotAFunction { .. } => "Use a plain function".to_owned(),
            Self::WrongArguments { .. } => {
                "A handler takes (jsonb), (pushy.job) or nothing".to_owned()
            }
            Self::ReturnsSet { .. } => {
                "A handler returns one value or void: let it return an array or jsonb".to_owned()
            }
            Self::ReturnsPseudoType { .. } => {
                "A handler returns void or any type that converts to jsonb".to_owned()
            }
            Self::RoleGone { queue, role } => format!(
                "SELECT pushy.queue_alter({}, run_as => …) with a role that exists, or CREATE ROLE {role} LOGIN and then SELECT * FROM pushy.resume_after_restore()",
                quote_literal(queue)
            ),
            Self::OwnerGone { queue, .. } => format!(
                "As a superuser: SELECT pushy.queue_drop({}, force => true) and register it again, or create the role and run SELECT * FROM pushy.resume_after_restore()",
                quote_literal(queue)
            ),
            Self::OwnerMayNotBecome { owner, role } => format!("GRANT {role} TO {owner}"),
            Self::NoSchemaUsage { role, schema, .. } => {
                format!("GRANT USAGE ON SCHEMA {schema} TO {role}")
            }
            Self::NoExecute { role, handler } => {
                format!("GRANT EXECUTE ON FUNCTION {handler} TO {role}")
            }
            Self::SuperuserRunsForeignHandler { role, handler, .. } => format!(
                "ALTER FUNCTION {handler} OWNER TO {role}, or run the queue as a role that is no superuser"
            ),
            Self::NoLogin { role } => format!("ALTER ROLE {role} LOGIN"),
            Self::NoConnect { role, database } => {
                format!("GRANT CONNECT ON DATABASE {database} TO {role}")
            }
            Self::TooManySessions { role, .. } => {
                format!("ALTER ROLE {role} CONNECTION LIMIT -1, or let sessions of {role} end")
            }
            Self::DatabaseClosed { database } => {
                format!("ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true")
            }
            Self::DatabaseFull { database, .. } => {
                format!("ALTER DATABASE {database} CONNECTION LIMIT -1, or let sessions of it end")
            }
        }
    }

    /// The error of a call that wants the queue to be fit.
    pub fn into_error(self) -> Error {
        Error::new(self.sqlstate(), self.reason()).hint(self.fix())
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::HandlerGone { .. } => SqlState::UNDEFINED_FUNCTION,
            Self::Procedure { .. } => SqlState::FEATURE_NOT_SUPPORTED,
            Self::Temporary { .. }
            | Self::NotAFunction { .. }
            | Self::WrongArguments { .. }
            | Self::ReturnsSet { .. }
            | Self::ReturnsPseudoType { .. } => SqlState::INVALID_FUNCTION_DEFINITION,
            Self::RoleGone { .. } | Self::OwnerGone { .. } => SqlState::UNDEFINED_OBJECT,
            Self::HandlerRenamed { .. }
            | Self::RoleRenamed { .. }
            | Self::OwnerRenamed { .. }
            | Self::TooManySessions { .. }
            | Self::DatabaseClosed { .. }
            | Self::DatabaseFull { .. } => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::OwnerMayNotBecome { .. }
            | Self::NoSchemaUsage { .. }
            | Self::NoExecute { .. }
            | Self::SuperuserRunsForeignHandler { .. }
            | Self::NoLogin { .. }
            | Self::NoConnect { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
        }
    }
}

/// What has to be called for a queue's jobs, or why that must not be done now.
pub fn check(queue: &Definition) -> Result<Handler, Unfit> {
    check_roles(queue)?;
    let (function, handler) = find_handler(queue)?;
    check_rights(queue, &function)?;
    Ok(handler)
}

/// Whether a worker can open a session as the queue's role at all; without that nobody gets to `check`.
pub fn check_session(queue: &Definition) -> Result<(), Unfit> {
    session_as(database::current(), &run_as(queue)?)
}

/// The same for a role and a database by number.
pub fn session_of(database: u32, role: u32) -> Result<(), Unfit> {
    let found = identity::role(Oid::from(role)).ok_or_else(|| Unfit::RoleGone {
        queue: String::new(),
        role: role.to_string(),
    })?;
    session_as(database, &found)
}

fn session_as(database: u32, role: &identity::Role) -> Result<(), Unfit> {
    let name = || identifier::quoted(&database::name(database).unwrap_or_default());
    let role_name = || identifier::quoted(&role.name);
    let limits = database::limits(database);
    if !limits.allows_connections {
        return Err(Unfit::DatabaseClosed { database: name() });
    }
    if !role.login && !identity::WORKERS_MAY_BE_NOLOGIN {
        return Err(Unfit::NoLogin { role: role_name() });
    }
    if !identity::may_connect(database, role.oid) {
        return Err(Unfit::NoConnect {
            role: role_name(),
            database: name(),
        });
    }
    if identity::has_too_many_sessions(role) {
        return Err(Unfit::TooManySessions {
            role: role_name(),
            limit: role.connection_limit,
        });
    }
    if !role.superuser && database::has_too_many_sessions(database, &limits) {
        return Err(Unfit::DatabaseFull {
            database: name(),
            limit: limits.connections,
        });
    }
    Ok(())
}

/// The queue's role as it is now, if it still is the role that was meant.
fn run_as(queue: &Definition) -> Result<identity::Role, Unfit> {
    let role = identity::role(queue.run_as).ok_or_else(|| Unfit::RoleGone {
        queue: queue.name.clone(),
        role: identifier::quoted(&queue.run_as_name),
    })?;
    if role.name != queue.run_as_name {
        return Err(Unfit::RoleRenamed {
            queue: queue.name.clone(),
            role: identifier::quoted(&queue.run_as_name),
            now: identifier::quoted(&role.name),
        });
    }
    Ok(role)
}

fn check_roles(queue: &Definition) -> Result<(), Unfit> {
    let role = run_as(queue)?;
    let owner = identity::role(queue.owner).ok_or_else(|| Unfit::OwnerGone {
        queue: queue.name.clone(),
        owner: identifier::quoted(&queue.owner_name),
    })?;
    if owner.name != queue.owner_name {
        return Err(Unfit::OwnerRenamed {
            queue: queue.name.clone(),
            owner: identifier::quoted(&queue.owner_name),
            now: identifier::quoted(&owner.name),
        });
    }
    if !identity::may_become(queue.owner, queue.run_as) {
        return Err(Unfit::OwnerMayNotBecome {
            owner: identifier::quoted(&owner.name),
            role: identifier::quoted(&role.name),
        });
    }
    Ok(())
}

fn find_handler(queue: &Definition) -> Result<(Function, Handler), Unfit> {
    let function = functions::function(queue.handler_oid).ok_or_else(|| Unfit::HandlerGone {
        queue: queue.name.clone(),
        handler: queue.handler.clone(),
    })?;
    if function.signature != queue.handler {
        return Err(Unfit::HandlerRenamed {
            queue: queue.name.clone(),
            handler: queue.handler.clone(),
            now: function.signature,
        });
    }
    let handler = shape(&function)?;
    Ok((function, handler))
}

/// Whether a function has the form of a handler.
pub fn shape(function: &Function) -> Result<Handler, Unfit> {
    let handler = function.signature.clone();
    if functions::is_temporary_schema(function.schema) {
        return Err(Unfit::Temporary { handler });
    }
    match function.kind {
        b'f' => {}
        b'p' => return Err(Unfit::Procedure { handler }),
        _ => return Err(Unfit::NotAFunction { handler }),
    }
    let takes = match function.arguments.as_slice() {
        [] => Takes::Nothing,
        [one] if *one == BuiltinOid::JSONBOID.value() => Takes::Jsonb,
        [one] if Some(*one) == functions::job_type() => Takes::Job,
        _ => return Err(Unfit::WrongArguments { handler }),
    };
    if function.returns_set {
        return Err(Unfit::ReturnsSet { handler });
    }
    let returns = function.returns;
    if functions::is_pseudo_type(returns)
        && ![BuiltinOid::VOIDOID, BuiltinOid::RECORDOID]
            .iter()
            .any(|one| one.value() == returns)
    {
        return Err(Unfit::ReturnsPseudoType {
            handler,
            returns: functions::type_name(returns),
        });
    }
    Ok(Handler {
        oid: function.oid,
        takes,
        returns,
    })
}

/// Whether the queue's role may run the function, and may trust it.
fn check_rights(queue: &Definition, function: &Function) -> Result<(), Unfit> {
    let role = || identifier::quoted(&queue.run_as_name);
    let handler = || function.signature.clone();
    if !identity::may_use_schema(function.schema, queue.run_as) {
        return Err(Unfit::NoSchemaUsage {
            role: role(),
            schema: functions::schema_name(function.schema),
            handler: handler(),
        });
    }
    if !identity::may_execute(function.oid, queue.run_as) {
        return Err(Unfit::NoExecute {
            role: role(),
            handler: handler(),
        });
    }
    if identity::is_superuser(queue.run_as) && !identity::is_superuser(function.owner) {
        return Err(Unfit::SuperuserRunsForeignHandler {
            role: role(),
            handler: handler(),
            owner: identifier::quoted(&identity::role_name(function.owner)),
        });
    }
    Ok(())
}
