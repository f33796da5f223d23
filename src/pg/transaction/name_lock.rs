//! A lock on a name that somebody declares: the next to declare it waits for the end of the transaction that does, and finds what
//! it has left. Without the lock both would look, find nothing, and write.

use pushy_core::fnv;

use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::pg::object_lock::{self, Hold};
use crate::pg::{ereport, identity, text};

/// What is found by its name: each kind by the index that keeps its names apart.
#[derive(Clone, Copy)]
pub enum Named {
    Queue,
    Channel,
    Subscription,
}

impl Named {
    const fn index(self) -> &'static str {
        match self {
            Self::Queue => "queue_queue_key",
            Self::Channel => "channel_pkey",
            Self::Subscription => "subscription_pkey",
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Channel => "channel",
            Self::Subscription => "subscription",
        }
    }
}

/// Holds the name until the transaction ends. Who owns the name closes it to others, and holds it alone; who only uses it shares it.
/// The wait for an open transaction is as long as lock_timeout allows; a prepared one, which nobody sees, is named in a NOTICE.
pub fn take(named: Named, name: &[u8], hold: Hold) -> Result<()> {
    let hash = fnv::hash(name);
    let number = (hash ^ (hash >> 32)) as u32;
    object_lock::lock(named.index(), number, hold, || {
        say_who_declares(named, name, number)
    })
}

#[cold]
fn say_who_declares(named: Named, name: &[u8], number: u32) -> Result<()> {
    let holder = identity::as_owner(|| object_lock::prepared_holder(named.index(), number))?;
    if let Some(gid) = holder.map(|gid| quote_literal(&gid)) {
        ereport::notice(
            &Error::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!(
                    "{} \"{}\" waits for prepared transaction {gid}, which has declared it or something on it",
                    named.word(),
                    text::shown(name)
                ),
            )
            .hint(format!("COMMIT PREPARED {gid}, or ROLLBACK PREPARED {gid}.")),
        );
    }
    Ok(())
}
