//! C symbols of functions that have another signature by now. An archived script names them, so pg_upgrade makes its functions
//! with them; whoever calls one is told to update the script, which gives the functions others.

use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::script;
use crate::sql_function;

#[cold]
fn refuse() -> Result<Answer> {
    Err(script::refused(script::stands()))
}

// 0.1.0: a queue had no lease.
sql_function!(pushy_queue_register_v1, |_call| refuse());
sql_function!(pushy_queue_alter_v1, |_call| refuse());
// 0.1.0: nothing had a topic.
sql_function!(pushy_watch_v1, |_call| refuse());
sql_function!(pushy_notify_v1, |_call| refuse());
sql_function!(pushy_subscription_create_v1, |_call| refuse());
sql_function!(pushy_subscription_read_v1, |_call| refuse());
sql_function!(pushy_subscription_rows_v1, |_call| refuse());
// 0.1.0: nothing was snoozed.
sql_function!(pushy_queue_statistics_v1, |_call| refuse());
