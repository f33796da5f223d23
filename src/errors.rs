//! Every error Pushy raises: what was wrong, the value, and the way out.
//!
//! The style is PostgreSQL's own: lower case, no full stop in the message; sentences in detail and
//! hint. The SQLSTATE is chosen, never defaulted.

pub use pushy_core::hidden::quote_literal;

use crate::pg::value::interval::shown_length;

/// A five-character SQLSTATE, as the documentation of PostgreSQL lists them (appendix A).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    pub const NULL_VALUE_NOT_ALLOWED: Self = Self(*b"22004");
    pub const INVALID_PARAMETER_VALUE: Self = Self(*b"22023");
    pub const CHARACTER_NOT_IN_REPERTOIRE: Self = Self(*b"22021");
    pub const SUCCESSFUL_COMPLETION: Self = Self(*b"00000");
    pub const WARNING: Self = Self(*b"01000");
    pub const UNDEFINED_TABLE: Self = Self(*b"42P01");
    pub const TRIGGER_PROTOCOL_VIOLATED: Self = Self(*b"39P01");
    pub const DEPENDENT_OBJECTS_STILL_EXIST: Self = Self(*b"2BP01");
    pub const WRONG_OBJECT_TYPE: Self = Self(*b"42809");
    pub const DUPLICATE_OBJECT: Self = Self(*b"42710");
    pub const UNDEFINED_COLUMN: Self = Self(*b"42703");
    pub const UNIQUE_VIOLATION: Self = Self(*b"23505");
    pub const READ_ONLY_TRANSACTION: Self = Self(*b"25006");
    pub const INVALID_TRANSACTION_TERMINATION: Self = Self(*b"2D000");
    pub const SYNTAX_ERROR: Self = Self(*b"42601");
    pub const NAME_TOO_LONG: Self = Self(*b"42622");
    pub const INVALID_SCHEMA_NAME: Self = Self(*b"3F000");
    pub const INSUFFICIENT_PRIVILEGE: Self = Self(*b"42501");
    pub const DATATYPE_MISMATCH: Self = Self(*b"42804");
    pub const UNDEFINED_OBJECT: Self = Self(*b"42704");
    pub const FEATURE_NOT_SUPPORTED: Self = Self(*b"0A000");
    pub const UNDEFINED_FUNCTION: Self = Self(*b"42883");
    pub const AMBIGUOUS_FUNCTION: Self = Self(*b"42725");
    pub const INVALID_FUNCTION_DEFINITION: Self = Self(*b"42P13");
    pub const CONFIGURATION_LIMIT_EXCEEDED: Self = Self(*b"53400");
    pub const RAISE_EXCEPTION: Self = Self(*b"P0001");
    pub const STATEMENT_TOO_COMPLEX: Self = Self(*b"54001");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: Self = Self(*b"55000");
    pub const OBJECT_IN_USE: Self = Self(*b"55006");
    pub const SERIALIZATION_FAILURE: Self = Self(*b"40001");
    pub const DEADLOCK_DETECTED: Self = Self(*b"40P01");
    pub const OUT_OF_MEMORY: Self = Self(*b"53200");
    pub const PROGRAM_LIMIT_EXCEEDED: Self = Self(*b"54000");
    pub const ADMIN_SHUTDOWN: Self = Self(*b"57P01");
    pub const CRASH_SHUTDOWN: Self = Self(*b"57P02");
    pub const LOCK_NOT_AVAILABLE: Self = Self(*b"55P03");
    pub const CONNECTION_FAILURE: Self = Self(*b"08006");
    pub const QUERY_CANCELED: Self = Self(*b"57014");
    pub const INTERNAL_ERROR: Self = Self(*b"XX000");

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("five ASCII characters")
    }
}

/// An error, before it is raised or after it was caught: one of ours on its way to the user, what user code failed with, exactly as
/// it was raised, or what ended a transaction of a worker. Where and how it is caught (`pg::catch`, `pg::subtransaction`,
/// `pg::transaction`) says what has been rolled back.
#[derive(Clone, Debug)]
pub struct Error {
    pub sqlstate: SqlState,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    /// Where in the user's code it was raised, as the server says it; an error of ours has none.
    pub context: Option<String>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Self {
            sqlstate,
            message: message.into(),
            detail: None,
            hint: None,
            context: None,
        }
    }

    /// Somebody held a lock, and bookkeeping does not wait for that: come back later. A deadlock is the same.
    pub fn is_busy(&self) -> bool {
        [SqlState::LOCK_NOT_AVAILABLE, SqlState::DEADLOCK_DETECTED].contains(&self.sqlstate)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The hint as a sentence. Many end with a statement, which views show without a full stop because people paste it.
    pub fn hint_sentence(&self) -> Option<String> {
        const VERBS: [&str; 7] = [
            "SELECT ", "CALL ", "ALTER ", "CREATE ", "DROP ", "GRANT ", "REVOKE ",
        ];
        let hint = self.hint.as_deref().filter(|hint| !hint.is_empty())?;
        let run = if VERBS.iter().any(|verb| hint.starts_with(verb)) {
            "Run: "
        } else {
            ""
        };
        let stop = if hint.ends_with(['.', '?', '!', '…']) {
            ""
        } else {
            "."
        };
        Some(format!("{run}{hint}{stop}"))
    }

    pub fn null_argument(name: &str) -> Self {
        Self::new(
            SqlState::NULL_VALUE_NOT_ALLOWED,
            format!("argument \"{name}\" must not be null"),
        )
        .hint(format!("Pass a value for \"{name}\"."))
    }

    pub fn out_of_range(name: &str, value: impl std::fmt::Display, allowed: &str) -> Self {
        Self::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for \"{name}\": {value}"),
        )
        .hint(format!("Allowed: {allowed}."))
    }

    /// A timeout (µs, 0 for none) that pushy.max_job_timeout does not allow.
    pub fn timeout_too_long(timeout_us: i64, most_us: i64) -> Self {
        let most = shown_length(most_us);
        let said = match timeout_us {
            0 => format!(
                "timeout 0, which means none, is not allowed: pushy.max_job_timeout is {most}"
            ),
            _ => format!(
                "a timeout of {} is more than pushy.max_job_timeout allows, {most}",
                shown_length(timeout_us)
            ),
        };
        Self::new(SqlState::CONFIGURATION_LIMIT_EXCEEDED, said).hint(
            "Pass a timeout that it allows, or ask a superuser to raise pushy.max_job_timeout.",
        )
    }

    pub fn no_such_role(role: &str) -> Self {
        Self::new(
            SqlState::UNDEFINED_OBJECT,
            format!("role \"{role}\" does not exist"),
        )
        .hint("Write a role's name exactly as pg_roles shows it, or 'public' for everybody.")
    }

    pub fn no_such_queue(queue: &str) -> Self {
        Self::new(
            SqlState::UNDEFINED_OBJECT,
            format!("queue \"{queue}\" does not exist"),
        )
        .hint("Register it with pushy.queue_register(queue, handler), or without a handler for workers outside; SELECT queue FROM pushy.queues lists those you may see.")
    }

    pub fn no_such_job(id: i64) -> Self {
        Self::new(
            SqlState::UNDEFINED_OBJECT,
            format!("job {id} does not exist"),
        )
        .hint("It may have finished longer ago than its queue keeps history (keep_completed, keep_discarded; at once where that is 0), or be of a queue on which you have no privilege.")
    }

    pub fn queue_denied(queue: &str, privilege: &str, role: &str) -> Self {
        Self::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("permission denied for queue \"{queue}\""),
        )
        .detail(format!("Role \"{role}\" lacks privilege \"{privilege}\"."))
        .hint(format!(
            "The queue's owner can run: SELECT pushy.queue_grant({}, {}, '{privilege}')",
            quote_literal(queue),
            quote_literal(role)
        ))
    }

    /// `owner`: None for one that is gone.
    pub fn not_queue_owner(queue: &str, owner: Option<&str>) -> Self {
        Self::new(
            SqlState::INSUFFICIENT_PRIVILEGE,
            format!("must be owner of queue \"{queue}\""),
        )
        .hint(match owner {
            Some(owner) => format!("It belongs to role \"{owner}\": use that role, or a member of it."),
            None => "The role that owned it was dropped: a superuser can give it another with pushy.queue_alter(queue, owner => …).".to_owned(),
        })
    }

    /// The name is another's, who may have nothing to do with the caller.
    pub fn queue_name_taken(queue: &str, owner: &str) -> Self {
        Self::not_queue_owner(queue, Some(owner))
            .detail(format!("It is registered, and belongs to role \"{owner}\"."))
            .hint(format!(
                "Queues are named once per database: give yours another name, or connect as role \"{owner}\" or a member of it to change this one."
            ))
    }
}
