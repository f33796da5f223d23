//! queue_rename: another name for the same queue, which keeps its number, and with that its jobs, history, privileges, and the
//! watches and subscriptions that feed it.

use crate::errors::{Error, Result, SqlState};
use crate::pg::name_lock::{self, Named};
use crate::pg::object_lock::LockMode;
use crate::pg::spi::{self, Plan};
use crate::pg::subtransaction;
use crate::pg::{identifier, identity, transaction, BuiltinOid};
use crate::queue::control_channel;
use crate::queue::definition::{self, QueueDefinition};
use crate::queue::{alter, announce, reference};
use crate::{params, sql_function};

sql_function!(pushy_queue_rename_v1, |call| {
    transaction::require_writable(c"pushy.queue_rename()");
    let queue = call.text("queue", 0)?;
    let new_name = call.text("new_name", 1)?;
    identifier::require_name("new_name", &new_name)?;
    rename(&queue, new_name)
});

static RENAME: Plan = Plan::new(
    "UPDATE pushy_internal.queue SET queue = $2 WHERE queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
);

fn rename(name: &str, new_name: String) -> Result<()> {
    let before = alter::find_owned(name)?;
    if before.name == new_name {
        return Ok(());
    }
    let is_taken = || identity::as_owner(|| Ok(definition::find(&new_name)?.is_some()));
    if is_taken()? {
        return Err(taken(&new_name));
    }
    name_lock::take(Named::Queue, new_name.as_bytes(), LockMode::Alone)?;
    if is_taken()? {
        return Err(taken(&new_name));
    }
    let queue = QueueDefinition {
        name: new_name,
        ..before
    };
    // Somebody may register the name at this moment.
    let written = subtransaction::run(|| {
        identity::as_owner(|| {
            spi::run(&RENAME, params![queue.queue_id, queue.name.as_str()]);
            reference::take_up(&queue)
        })
    });
    match written {
        Err(error) if error.sqlstate == SqlState::UNIQUE_VIOLATION => {
            return Err(taken(&queue.name))
        }
        other => other?,
    }
    announce::changed(&queue);
    control_channel::publish_renamed(name, &queue.name)
}

#[cold]
fn taken(name: &str) -> Error {
    Error::new(
        SqlState::DUPLICATE_OBJECT,
        format!("queue \"{name}\" exists already"),
    )
    .hint("Choose another name, or rename or drop that queue first.")
}
