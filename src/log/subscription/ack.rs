//! subscription_ack.

use pushy_core::log::standing::CursorStanding;

use super::{arguments, table};
use crate::errors::{Error, Result};
use crate::log::log_snapshot::LogSnapshot;
use crate::log::standing;
use crate::pg::function::Call;
use crate::pg::{clock, identity, transaction};
use crate::sql_function;

sql_function!(pushy_subscription_ack_v1, |call| subscription_ack(call));

fn subscription_ack(call: Call) -> Result<bool> {
    transaction::require_writable(c"pushy.subscription_ack()");
    let name = call.text("name", 0)?;
    let cursor = arguments::cursor("cursor", &call.text("cursor", 1)?)?;
    let subscription = table::owned(&name, identity::current_user())?;
    identity::as_owner(|| {
        let log = LogSnapshot::take()?;
        if !cursor.is_of_log(log.born) {
            return Err(Error::out_of_range(
                "cursor",
                format!("\"{cursor}\""),
                "one of this event log: the cursor is of the log before a restore, or of another database; read the tables anew, and go on with what pushy.subscription_read answers",
            ));
        }
        if standing::of_argument("cursor", &log, cursor)? == CursorStanding::Gone {
            return Err(Error::out_of_range(
                "cursor",
                format!("\"{cursor}\""),
                "one whose notices are here: a crash or a promotion has taken back what was read up to this cursor; roll back its effects, and go on with what pushy.subscription_read answers",
            ));
        }
        table::lock(&name)?;
        Ok(table::move_to(&subscription, cursor, Some(clock::now().0)))
    })
}
