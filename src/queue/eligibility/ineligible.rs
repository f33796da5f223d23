//! Why a queue cannot run, in words: the reason, and what to do about it.

use crate::errors::{quote_literal, Error, SqlState};
use crate::pg::{identifier, identity, major};

/// Why a queue's jobs cannot be run. Names are as SQL wants them written.
#[derive(Clone, Debug)]
pub enum Ineligible {
    Outside {
        queue: String,
    },
    HandlerGone {
        queue: String,
        handler: String,
    },
    HandlerRecreated {
        queue: String,
        handler: String,
    },
    HandlerRenamed {
        queue: String,
        handler: String,
        now: String,
    },
    HandlerOfAnother {
        handler: String,
        owner: String,
        was: String,
        role: String,
    },
    Temporary {
        handler: String,
    },
    ProcedureOfDefiner {
        handler: String,
    },
    ProcedureWithSettings {
        handler: String,
    },
    ProcedureAnswers {
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
        role: String,
        fix: String,
    },
    RoleRenamed {
        queue: String,
        role: String,
        now: String,
    },
    OwnerGone {
        owner: String,
        fix: String,
    },
    OwnerRenamed {
        queue: String,
        owner: String,
        now: String,
    },
    OwnerMayNotBecome {
        owner: String,
        role: String,
        /// A membership would make the owner one too.
        superuser: bool,
    },
    NoSchemaUsage {
        role: String,
        schema: String,
        handler: String,
    },
    NoExecute {
        role: String,
        handler: String,
        is_procedure: bool,
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
    /// The session has rights from its connect that the role has no more, or not yet.
    SessionOutdated {
        role: String,
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

/// Words around a statement that would undo what somebody may have done on purpose.
fn ask(statement: &str) -> String {
    format!("Ask whoever administers it, because it may be meant to be so; else: {statement}")
}

impl Ineligible {
    /// Whether it is the role's session that is in the way, not the queue: nothing to park it for.
    pub fn refuses_sessions(&self) -> bool {
        matches!(
            self,
            Self::NoLogin { .. }
                | Self::NoConnect { .. }
                | Self::DatabaseClosed { .. }
                | Self::SessionOutdated { .. }
        )
    }

    /// What is in the way, in PostgreSQL's style of messages.
    pub fn reason(&self) -> String {
        match self {
            Self::HandlerGone { handler, .. } => format!("handler {handler} does not exist"),
            Self::HandlerRecreated { handler, .. } => {
                format!("handler {handler} was dropped and created again")
            }
            Self::HandlerRenamed { handler, now, .. } => {
                format!("handler {handler} is now {now}")
            }
            Self::HandlerOfAnother {
                handler,
                owner,
                was,
                role,
            } => format!(
                "handler {handler} belongs to role {owner} now, and belonged to {was} when it was chosen: role {role} would run {owner}'s code"
            ),
            Self::Temporary { handler } => {
                format!("handler {handler} is temporary: no worker can see it")
            }
            Self::Outside { queue } => {
                format!("queue \"{queue}\" has no handler: workers outside do its jobs")
            }
            Self::ProcedureOfDefiner { handler } => format!(
                "procedure {handler} is SECURITY DEFINER, and PostgreSQL lets such a one end no transaction"
            ),
            Self::ProcedureWithSettings { handler } => format!(
                "procedure {handler} has SET clauses, and PostgreSQL lets such a one end no transaction"
            ),
            Self::ProcedureAnswers { handler } => {
                format!("procedure {handler} has OUT or INOUT parameters")
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
            Self::OwnerMayNotBecome { owner, role, .. } => {
                format!("role {owner} may not become role {role}")
            }
            Self::NoSchemaUsage {
                role,
                schema,
                handler,
            } => format!("role {role} has no USAGE on schema {schema} of handler {handler}"),
            Self::NoExecute { role, handler, .. } => {
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
            Self::SessionOutdated { role } => {
                format!("the executor's session began before the rights of role {role} changed")
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

    /// Whether what `fix` answers can be run as it is: else it is words.
    pub fn is_mended_by_a_statement(&self) -> bool {
        !matches!(
            self,
            Self::HandlerGone { .. }
                | Self::Outside { .. }
                | Self::Temporary { .. }
                | Self::ProcedureOfDefiner { .. }
                | Self::ProcedureWithSettings { .. }
                | Self::ProcedureAnswers { .. }
                | Self::NotAFunction { .. }
                | Self::WrongArguments { .. }
                | Self::ReturnsSet { .. }
                | Self::ReturnsPseudoType { .. }
                | Self::RoleGone { .. }
                | Self::OwnerGone { .. }
                | Self::HandlerOfAnother { .. }
                | Self::SuperuserRunsForeignHandler { .. }
                | Self::OwnerMayNotBecome { .. }
        ) && !self.may_be_meant()
    }

    /// Whether it is the function that has to be another, or another's.
    pub fn is_of_handler(&self) -> bool {
        matches!(
            self,
            Self::Temporary { .. }
                | Self::ProcedureOfDefiner { .. }
                | Self::ProcedureWithSettings { .. }
                | Self::ProcedureAnswers { .. }
                | Self::NotAFunction { .. }
                | Self::WrongArguments { .. }
                | Self::ReturnsSet { .. }
                | Self::ReturnsPseudoType { .. }
                | Self::HandlerOfAnother { .. }
                | Self::SuperuserRunsForeignHandler { .. }
        )
    }

    /// Whether somebody has perhaps done it on purpose, so that who reads of it is to ask and not to paste.
    pub fn may_be_meant(&self) -> bool {
        matches!(
            self,
            Self::NoSchemaUsage { .. }
                | Self::NoExecute { .. }
                | Self::NoLogin { .. }
                | Self::NoConnect { .. }
                | Self::TooManySessions { .. }
                | Self::DatabaseClosed { .. }
                | Self::DatabaseFull { .. }
        )
    }

    /// What to do about it: the statement, where one will do, else words.
    pub fn fix(&self) -> String {
        match self {
            Self::HandlerGone { queue, handler } => format!(
                "Create {handler} again and run SELECT pushy.queue_resume({}), or name another handler with pushy.queue_alter or pushy.queue_register",
                quote_literal(queue)
            ),
            // Said by the owner, it takes the new function, or the new name.
            Self::HandlerRecreated { queue, .. }
            | Self::HandlerRenamed { queue, .. }
            | Self::RoleRenamed { queue, .. }
            | Self::OwnerRenamed { queue, .. } => {
                format!("SELECT pushy.queue_resume({})", quote_literal(queue))
            }
            // Words: whoever pastes a statement lets code run that somebody else has put there.
            // First the way that gives nobody more rights.
            Self::SuperuserRunsForeignHandler { handler, owner, role } => format!(
                "Pass run_as => {}, so that the jobs run as the handler's owner; to run them as {role}, read {handler} first, because {owner} has written it, and make {role} its owner with ALTER FUNCTION",
                quote_literal(owner)
            ),
            Self::HandlerOfAnother { handler, owner, role, .. } => format!(
                "Read {handler} first, because {owner} has written it; if its code is to run as {role}, make {role} its owner with ALTER FUNCTION"
            ),
            Self::Temporary { .. } => {
                "Create the handler in a schema that stays".to_owned()
            }
            Self::Outside { queue } => format!(
                "Claim its jobs with pushy.job_claim({}), or give it a handler with pushy.queue_alter",
                quote_literal(queue)
            ),
            Self::ProcedureOfDefiner { handler } => format!(
                "Run ALTER PROCEDURE {handler} SECURITY INVOKER and say the role with run_as, or make it a function"
            ),
            Self::ProcedureWithSettings { handler } => format!(
                "Run ALTER PROCEDURE {handler} RESET ALL and set them for the role with ALTER ROLE, or in its body with SET LOCAL after each COMMIT; or make it a function"
            ),
            Self::ProcedureAnswers { .. } => {
                "A procedure that is a handler takes (jsonb), (pushy.job) or nothing, and answers nothing: a function can return a result".to_owned()
            }
            Self::NotAFunction { .. } => "Use a plain function".to_owned(),
            Self::WrongArguments { .. } => {
                "A handler takes (jsonb), (pushy.job) or nothing; an argument that has a DEFAULT counts as well".to_owned()
            }
            Self::ReturnsSet { .. } => {
                "A handler returns one value or void: let it return an array or jsonb".to_owned()
            }
            Self::ReturnsPseudoType { .. } => {
                "A handler returns void or any type that converts to jsonb".to_owned()
            }
            Self::RoleGone { fix, .. } | Self::OwnerGone { fix, .. } => fix.clone(),
            Self::OwnerMayNotBecome { owner, superuser: true, .. } => format!(
                "Pass run_as => a role that is no superuser and of which {owner} is a member; a superuser registers the queues that run as one"
            ),
            Self::OwnerMayNotBecome { owner, role, .. } => format!(
                "Pass run_as => a role of which {owner} is a member; or, if {owner} is to have all rights of {role}, run GRANT {role} TO {owner}{}",
                major::MAY_BECOME_IT
            ),
            Self::NoSchemaUsage { role, schema, .. } => {
                ask(&format!("GRANT USAGE ON SCHEMA {schema} TO {role}"))
            }
            Self::NoExecute {
                role,
                handler,
                is_procedure,
            } => {
                let kind = if *is_procedure { "PROCEDURE" } else { "FUNCTION" };
                ask(&format!("GRANT EXECUTE ON {kind} {handler} TO {role}"))
            }
            Self::NoLogin { role } => ask(&format!("ALTER ROLE {role} LOGIN")),
            Self::NoConnect { role, database } => {
                ask(&format!("GRANT CONNECT ON DATABASE {database} TO {role}"))
            }
            Self::SessionOutdated { .. } => {
                "Nothing: the executor leaves, and another one comes".to_owned()
            }
            Self::TooManySessions { role, .. } => {
                ask(&format!("ALTER ROLE {role} CONNECTION LIMIT -1"))
            }
            Self::DatabaseClosed { database } => ask(&format!(
                "ALTER DATABASE {database} WITH ALLOW_CONNECTIONS true"
            )),
            Self::DatabaseFull { database, .. } => {
                ask(&format!("ALTER DATABASE {database} CONNECTION LIMIT -1"))
            }
        }
    }

    /// The error of a call that wants the queue to be eligible.
    pub fn into_error(self) -> Error {
        let hint = match &self {
            // A role that owns things and has no session is meant to stay so.
            Self::NoLogin { role } => format!(
                "Pass run_as => a role that logs in and of which {} is a member, or run ALTER ROLE {role} LOGIN",
                identifier::quoted(&identity::role_name(identity::current_user()))
            ),
            _ => self.fix(),
        };
        Error::new(self.sqlstate(), self.reason()).hint(hint)
    }

    fn sqlstate(&self) -> SqlState {
        match self {
            Self::HandlerGone { .. } => SqlState::UNDEFINED_FUNCTION,
            Self::Outside { .. } => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::Temporary { .. }
            | Self::NotAFunction { .. }
            | Self::WrongArguments { .. }
            | Self::ProcedureOfDefiner { .. }
            | Self::ProcedureWithSettings { .. }
            | Self::ProcedureAnswers { .. }
            | Self::ReturnsSet { .. }
            | Self::ReturnsPseudoType { .. } => SqlState::INVALID_FUNCTION_DEFINITION,
            Self::RoleGone { .. } | Self::OwnerGone { .. } => SqlState::UNDEFINED_OBJECT,
            Self::HandlerRecreated { .. }
            | Self::HandlerRenamed { .. }
            | Self::RoleRenamed { .. }
            | Self::OwnerRenamed { .. }
            | Self::SessionOutdated { .. }
            | Self::TooManySessions { .. }
            | Self::DatabaseClosed { .. }
            | Self::DatabaseFull { .. } => SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            Self::OwnerMayNotBecome { .. }
            | Self::NoSchemaUsage { .. }
            | Self::NoExecute { .. }
            | Self::HandlerOfAnother { .. }
            | Self::SuperuserRunsForeignHandler { .. }
            | Self::NoLogin { .. }
            | Self::NoConnect { .. } => SqlState::INSUFFICIENT_PRIVILEGE,
        }
    }
}
