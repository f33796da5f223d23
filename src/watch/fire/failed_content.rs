//! What a watch says of a row of which an expression or a conversion has failed: the write goes on, and the notice, or the job, has the error.

use std::rc::Rc;

use super::content::{guarded, origin, Body, Content};
use crate::errors::{Error, Result, SqlState};
use crate::pg::text;
use crate::pg::trigger::Op;
use crate::watch::cache::CachedWatch;
use crate::watch::notice_json::{PayloadKind, RowChange};

/// What ends the statement or the transaction anyway, and goes on as an error.
#[cold]
pub(super) fn ends_statement(error: &Error) -> bool {
    const TRANSACTION_ROLLBACK: &str = "40";
    let sqlstate = error.sqlstate;
    sqlstate == SqlState::QUERY_CANCELED || sqlstate.as_str().starts_with(TRANSACTION_ROLLBACK)
}

#[cold]
pub(super) fn failed(
    watch: &Rc<CachedWatch>,
    op: Op,
    change: Option<&RowChange<'_>>,
    error: Error,
) -> Result<Content> {
    if ends_statement(&error) {
        return Err(error);
    }
    let payload = error_payload(watch, op, change, &error);
    let args = watch.definition.queue.as_ref().and_then(|_| {
        let may_fail = change.is_some() && watch.shape.may_be_no_jsonb(PayloadKind::Key);
        guarded(may_fail, || text::jsonb(&payload))
            .or_else(|_| text::jsonb(&error_payload(watch, op, None, &error)))
            .ok()
    });
    let body = Body {
        payload,
        topic: None,
        args,
        key: None,
    };
    Ok(Content::Failure(Box::new((error, body))))
}

/// What is published of a change whose payload failed: with its key, unless that is what fails.
fn error_payload(
    watch: &CachedWatch,
    op: Op,
    change: Option<&RowChange<'_>>,
    error: &Error,
) -> Vec<u8> {
    let mut payload = Vec::new();
    let may_fail = change.is_some() && watch.shape.can_fail(PayloadKind::Key);
    let written = guarded(may_fail, || {
        watch.shape.error(op, change, origin(), error, &mut payload);
        Ok(())
    });
    if written.is_err() {
        payload.clear();
        watch.shape.error(op, None, origin(), error, &mut payload);
    }
    payload
}

/// The notice says that its topic has failed, and nobody who has chosen topics gets it; the job is what it would be.
#[cold]
pub(super) fn without_topic(
    watch: &CachedWatch,
    op: Op,
    change: Option<&RowChange<'_>>,
    error: Error,
    args: Option<Vec<u8>>,
) -> Content {
    let body = Body {
        payload: error_payload(watch, op, change, &error),
        topic: None,
        args,
        key: None,
    };
    Content::Failure(Box::new((error, body)))
}
