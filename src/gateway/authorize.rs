//! gateway_authorize: decided once when somebody subscribes, and at each renewal.

use pushy_core::log::cursor::Cursor;
use pushy_core::topic::Pattern;

use crate::channel::heard_outside::{self, Since};
use crate::channel::{topic, Channel};
use crate::errors::{Error, Result};
use crate::log::log_snapshot::LogSnapshot;
use crate::log::standing;
use crate::pg::function::{Answer, Call};
use crate::pg::{identity, text};
use crate::queue::gateway_event;
use crate::{row, sql_function};

sql_function!(pushy_gateway_authorize_v1, |call| authorize(call));

/// What a stranger has said is no error of the gateway's: it is refused in words.
fn authorize(call: Call) -> Result<Answer> {
    gateway_event::note_gateway(c"pushy_internal.gateway_authorize()");
    let role = call.text("role", 0)?;
    let subject = call.opt_text(1)?;
    let written = call.bytes("channel", 2)?;
    let refused = |reason: String| call.answer_row(row![Answer::Null, false, reason, Answer::Null]);
    let channel = match Channel::declared(&written) {
        Ok(channel) => channel,
        Err(error) => return Ok(refused(error.message)),
    };
    let topics = match topics(call) {
        Ok(topics) => topics,
        Err(error) => return Ok(refused(error.message)),
    };
    let Some(role) = identity::find_role(&role) else {
        return Ok(refused(format!("role \"{role}\" does not exist")));
    };
    let asked = topics.as_deref();
    let since = match heard_outside::ask(channel.as_bytes(), role, subject.as_deref(), asked)? {
        Ok(since) => since_cursor(since)?,
        Err(reason) => return Ok(refused(reason)),
    };
    let name = text::shown(channel.as_bytes());
    Ok(call.answer_row(row![
        name,
        true,
        Answer::Null,
        since.map(|since| since.to_string())
    ]))
}

fn topics(call: Call) -> Result<Option<Vec<Pattern>>> {
    let given = topic::patterns_argument_or_none(call, 3)?;
    let read = |written: &Vec<u8>| {
        Pattern::read(written)
            .map_err(|_| Error::out_of_range("topics", text::shown(written), "patterns"))
    };
    given
        .map(|given| given.iter().map(read).collect())
        .transpose()
}

/// As a cursor of the log that is here.
fn since_cursor(since: Since) -> Result<Option<Cursor>> {
    if since == Since::Oldest {
        return Ok(None);
    }
    let log = identity::as_owner(LogSnapshot::take)?;
    match since {
        Since::After(cursor) if cursor.is_of_log(log.born) => Ok(Some(cursor)),
        // What was in the log before a restore is in none.
        Since::After(_) | Since::Oldest => Ok(None),
        Since::Now => identity::as_owner(|| standing::newest(&log)).map(Some),
    }
}
