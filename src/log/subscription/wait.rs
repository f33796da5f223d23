//! subscription_wait: on the condition that the relay broadcasts with each tick.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pushy_core::log::cursor::Cursor;

use super::table::{self, Subscription};
use crate::errors::{Error, Result, SqlState};
use crate::log::filter::Filter;
use crate::log::read::{self, Stretch};
use crate::pg::function::{Answer, Call};
use crate::pg::installed::Installed;
use crate::pg::{database, identity, interrupts, invalidation, transaction};
use crate::shared::database::DatabaseSlot;
use crate::{row, shared, sql_function};

/// As sql/log.sql has it.
const USUAL: Duration = Duration::from_secs(3_600);

sql_function!(pushy_subscription_wait_v1, |call| subscription_wait(call));

fn subscription_wait(call: Call) -> Result<Answer> {
    let name = call.text("name", 0)?;
    let timeout = call.timeout("timeout", 1, USUAL)?;
    transaction::require_nonatomic(call.is_nonatomic_call(), "pushy.subscription_wait")?;
    let database_slot = slot_of_database()?;
    let deadline = Instant::now() + timeout;
    let subscription = table::owned(&name, identity::current_user())?;
    let mut passed = subscription.cursor;
    let is_ready = if subscription.is_home {
        until_something(database_slot, &mut passed, deadline, || {
            filter_now(&subscription)
        })?
    } else {
        subscription.filter()?;
        true
    };
    if !is_ready && passed > subscription.cursor && !transaction::is_read_only() {
        transaction::with_snapshot(|| {
            identity::as_owner(|| Ok(table::move_to(&subscription, passed, None)))
        })?;
    }
    Ok(call.answer_row(row![is_ready]))
}

/// What a subscription gets as it is now, for a caller that may still read it.
fn filter_now(waited_for: &Subscription) -> Result<Filter> {
    let now = table::owned(&waited_for.name, identity::current_user())?;
    if now.number != waited_for.number {
        return Err(Error::new(
            SqlState::UNDEFINED_OBJECT,
            format!(
                "subscription \"{}\" was dropped while the call waited",
                now.name
            ),
        )
        .hint("There is another of its name: call again to wait for what it gets."));
    }
    now.filter()
}

/// Where the relay says that there is a tick.
pub fn slot_of_database() -> Result<&'static DatabaseSlot> {
    shared::get()
        .and_then(|shared| shared.ensure_database(database::current()))
        .ok_or_else(|| {
            Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "no notices are relayed: the library is not preloaded",
            )
            .hint(
                "Add shared_preload_libraries = 'pushy' to postgresql.conf and restart the server.",
            )
        })
}

/// Waits until there is something for a reader behind `passed`, which moves past what is not for it; false at the deadline.
/// `read_filter` says what it gets, and is asked again when that may have changed: as roles, grants and subscriptions are now, it is woken
/// and reads.
pub fn until_something(
    database_slot: &DatabaseSlot,
    passed: &mut Cursor,
    deadline: Instant,
    read_filter: impl Fn() -> Result<Filter>,
) -> Result<bool> {
    let installed = Installed::find()?;
    let may_change = || {
        (
            database_slot.definitions.load(Ordering::SeqCst),
            database_slot.subscriptions.load(Ordering::SeqCst),
            invalidation::changes(),
        )
    };
    let mut read_at = may_change();
    let mut filter = read_filter()?;
    loop {
        let ticks = database_slot.log.ticks();
        // Each look is a transaction of its own; between looks no snapshot is held.
        transaction::commit_in_procedure()?;
        installed.require()?;
        let now = may_change();
        if now != read_at {
            filter = transaction::with_snapshot(&read_filter)?;
            read_at = now;
        }
        let look = look(passed, &filter)?;
        if matches!(look, Look::Found) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        if matches!(look, Look::NotYet) {
            interrupts::check();
            continue;
        }
        transaction::commit_in_procedure()?;
        database_slot.log.wait_tick(ticks, left);
    }
}

/// What a look has found.
enum Look {
    Found,
    /// The log goes on behind where it ended.
    NotYet,
    Nothing,
}

/// Looks for something to read, a stretch of the log; what is not for this reader is passed over.
fn look(passed: &mut Cursor, filter: &Filter) -> Result<Look> {
    transaction::with_snapshot(|| {
        identity::as_owner(|| {
            let mut found = false;
            let reached = read::after(*passed, filter, Stretch::TURN, |_| {
                found = true;
                Ok(false)
            })?;
            if found {
                return Ok(Look::Found);
            }
            *passed = reached.passed;
            Ok(if reached.is_cut {
                Look::NotYet
            } else {
                Look::Nothing
            })
        })
    })
}
