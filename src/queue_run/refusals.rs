//! Where queue_run runs nothing, and why.

use crate::errors::{Error, Result, SqlState};
use crate::job::current;
use crate::pg::{identifier, identity, transaction};
use crate::queue::definition::QueueDefinition;

/// Not inside a job, whose session and transaction are an executor's; not on a standby.
pub(super) fn require_session() -> Result<()> {
    if let Some(job) = current::id() {
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("queue_run cannot be called by a handler (job {job})"),
        )
        .hint("What a handler enqueues runs by itself when its job commits."));
    }
    if transaction::is_in_recovery() {
        return Err(Error::new(
            SqlState::READ_ONLY_TRANSACTION,
            "queue_run cannot run jobs on a standby",
        )
        .hint("Run them on the primary."));
    }
    Ok(())
}

/// The session must be one of the role that the queue runs as, or a handler could RESET ROLE to another.
pub(super) fn require_role(queue: &QueueDefinition) -> Result<()> {
    let session = identity::session_user();
    if session == queue.run_as && session == identity::current_user() {
        return require_login(queue);
    }
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "queue_run runs jobs as the session's own role, but queue \"{}\" runs as role {}",
            queue.name,
            identifier::quoted(&queue.run_as_name)
        ),
    )
    .detail(format!(
        "The session's role is {}, the current role {}.",
        identifier::quoted(&identity::role_name(session)),
        identifier::quoted(&identity::role_name(identity::current_user()))
    ))
    .hint(format!(
        "Connect as {}.",
        identifier::quoted(&queue.run_as_name)
    )))
}

/// Nor may the session have been opened by another: a handler could RESET SESSION AUTHORIZATION.
fn require_login(queue: &QueueDefinition) -> Result<()> {
    let login = identity::authenticated_user();
    if login == queue.run_as {
        return Ok(());
    }
    let role = identifier::quoted(&queue.run_as_name);
    Err(Error::new(
        SqlState::INSUFFICIENT_PRIVILEGE,
        format!(
            "queue_run runs jobs as the role that has logged in, but queue \"{}\" runs as role {role}",
            queue.name
        ),
    )
    .detail(format!(
        "Role {} has logged in: after SET SESSION AUTHORIZATION a handler could go back to it.",
        identifier::quoted(&identity::role_name(login))
    ))
    .hint(format!("Connect as {role}.")))
}

/// A procedure ends transactions, and this one is the caller's.
#[cold]
pub(super) fn no_procedures(queue: &QueueDefinition) -> Error {
    Error::new(
        SqlState::FEATURE_NOT_SUPPORTED,
        format!(
            "queue_run cannot run queue \"{}\": its handler {} is a procedure",
            queue.name, queue.handler
        ),
    )
    .hint("Commit the job and let an executor run it: pushy.job_wait answers how it ended.")
}
