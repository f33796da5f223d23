//! What a beginner's handler fails with first, because an executor's session is not the session in which it was tried: a hint where
//! the server gives none.

use std::borrow::Cow;

use crate::errors::{Error, SqlState};
use crate::pg::identifier;
use crate::queue::definition::QueueDefinition;

/// The error with a hint, where we know one.
pub(super) fn hinted<'a>(queue: &QueueDefinition, error: &'a Error) -> Cow<'a, Error> {
    match hint(queue, error) {
        Some(hint) => Cow::Owned(error.clone().hint(hint)),
        None => Cow::Borrowed(error),
    }
}

fn hint(queue: &QueueDefinition, error: &Error) -> Option<String> {
    let role = || identifier::quoted(&queue.run_as_name);
    let looked_up = [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
        SqlState::INVALID_SCHEMA_NAME,
    ];
    // Of a function the server says that casts may be missing, whatever is.
    let has_own = error.hint.is_some() && error.sqlstate != SqlState::UNDEFINED_FUNCTION;
    if has_own {
        return None;
    }
    if looked_up.contains(&error.sqlstate) {
        let before = error
            .hint
            .as_ref()
            .map_or_else(String::new, |hint| format!("{hint} "));
        return Some(format!(
            "{before}Jobs run as role {} with that role's search_path, not with yours: write names with their schema, or create the handler with SET search_path = ….",
            role()
        ));
    }
    // As the server says it in any language: permission denied for schema pushy.
    let is_ours = error.message.split_whitespace().any(|word| word == "pushy");
    (error.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE && is_ours).then(|| {
        format!(
            "The owner of the database can run: GRANT USAGE ON SCHEMA pushy TO {}",
            role()
        )
    })
}
