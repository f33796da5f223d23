//! A lock on a name that somebody declares: the next to declare it waits for the end of the transaction that does, and finds what
//! it has left. Without the lock both would look, find nothing, and write.

use crate::errors::{Error, Result, SqlState};
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::{ereport, identity, prepared_wait, random, text};

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
/// The wait for an open transaction is as long as lock_timeout allows, and a NOTICE says that there is one; a prepared one, which
/// nobody sees, by its name. Which other names have the same number is a secret of the cluster: else anybody would find one, declare it,
/// and keep all others from this name.
pub fn take(named: Named, name: &[u8], mode: LockMode) -> Result<()> {
    let hash = random::keyed_hash(name);
    let number = Number(hash as u32, (hash >> 32) as u16);
    object_lock::lock(named.index(), number, mode, || {
        say_who_declares(named, name, number)
    })
}

#[cold]
fn say_who_declares(named: Named, name: &[u8], number: Number) -> Result<()> {
    let holder = identity::as_owner(|| object_lock::prepared_holder(named.index(), number))?;
    const HAS_DONE: &str = "has declared it or something on it";
    let what = format!("{} \"{}\"", named.word(), text::shown(name));
    let Some(gid) = holder else {
        ereport::notice(
            &Error::new(
                SqlState::SUCCESSFUL_COMPLETION,
                format!("{what} waits for an open transaction, which {HAS_DONE}"),
            )
            .hint(
                "It ends with that one's COMMIT or ROLLBACK; SELECT pg_blocking_pids(pid), from another session, says which session it is. \
                 SET lock_timeout bounds the wait.",
            ),
        );
        return Ok(());
    };
    prepared_wait::say(&what, HAS_DONE, &gid);
    Ok(())
}
