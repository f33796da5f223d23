//! subscription_create.

use pushy_core::log::cursor::Cursor;

use super::begin::{read_from, start, From};
use super::{arguments, table};
use crate::channel::topic;
use crate::errors::{quote_literal, Error, Result, SqlState};
use crate::log::filter::{Chosen, Filter};
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::home::Home;
use crate::pg::name_lock::{self, Named};
use crate::pg::object_lock::LockMode;
use crate::pg::spi::{self, Plan};
use crate::pg::{array, ereport, identifier, identity, role_lock, transaction, BuiltinOid, Oid};
use crate::queue::reference::QueueReference;
use crate::shared::numbers::{self, Numbered};
use crate::shared::pending;
use crate::{settings, sql_function};

sql_function!(pushy_subscription_create_v2, |call| create(call));

static INSERT: Plan = Plan::new(
    "INSERT INTO pushy_internal.subscription (name, channels, queue, epoch, tick, n, home_system, home_database, owner, owner_name, queue_id, queue_owner, subscription_id, home_extension, topics) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::pg_catalog.name, $11, $12, $13, $14, $15) ON CONFLICT (name) DO NOTHING",
    COLUMNS,
);

static CHANGE: Plan = Plan::new(
    "UPDATE pushy_internal.subscription SET channels = $2, queue = $3, stopped = NULL, epoch = $4, tick = $5, n = $6, \
            home_system = $7, home_database = $8, owner = $9, owner_name = $10::pg_catalog.name, \
            queue_id = $11, queue_owner = $12, home_extension = $14, topics = $15 \
      WHERE name OPERATOR(pg_catalog.=) $1 AND subscription_id OPERATOR(pg_catalog.=) $13",
    COLUMNS,
);

/// Types of what both write.
const COLUMNS: &[BuiltinOid] = &[
    BuiltinOid::TEXTOID,
    BuiltinOid::TEXTARRAYOID,
    BuiltinOid::TEXTOID,
    BuiltinOid::INT8OID,
    BuiltinOid::INT8OID,
    BuiltinOid::INT4OID,
    BuiltinOid::INT8OID,
    BuiltinOid::OIDOID,
    BuiltinOid::OIDOID,
    BuiltinOid::TEXTOID,
    BuiltinOid::INT4OID,
    BuiltinOid::OIDOID,
    BuiltinOid::INT4OID,
    BuiltinOid::OIDOID,
    BuiltinOid::TEXTARRAYOID,
];

static HIGHEST_KEPT: Plan = Plan::new(
    "SELECT COALESCE(GREATEST(pg_catalog.max(s.subscription_id), 0), 0)::pg_catalog.int8 FROM pushy_internal.subscription s",
    &[],
);

static NUMBERS: Numbered = Numbered::new(&numbers::SUBSCRIPTIONS, || {
    numbers::highest_in(&HIGHEST_KEPT)
});

static IS_HELD: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.subscription s WHERE s.subscription_id OPERATOR(pg_catalog.=) $1)",
    &[BuiltinOid::INT4OID],
);

/// A number that no subscription has. As the extension's owner.
pub fn next_number() -> Result<i32> {
    NUMBERS.draw_free(&IS_HELD)
}

static COUNT_CHANNELS: Plan = Plan::new(
    "SELECT COALESCE(pg_catalog.sum(COALESCE(pg_catalog.cardinality(s.channels), 1)), 0)::pg_catalog.int8 \
       FROM pushy_internal.subscription s \
      WHERE s.owner OPERATOR(pg_catalog.=) $1 AND s.name OPERATOR(pg_catalog.<>) $2",
    &[BuiltinOid::OIDOID, BuiltinOid::TEXTOID],
);

/// Refuses so many channels more in a subscription of this owner, because the relay and the readers go through all of
/// them; as the extension's owner.
fn require_share(owner: Oid, name: &str, channels: usize) -> Result<()> {
    let most = settings::max_channels_per_role();
    if most == 0 || identity::is_superuser(owner) {
        return Ok(());
    }
    // Another transaction of the role may be about to add some.
    role_lock::lock(owner)?;
    let others = transaction::with_latest_snapshot(|| {
        spi::connect(|spi| {
            let counted = spi.run_in_active_snapshot(&COUNT_CHANNELS, params![owner, name]);
            counted.row(0).i64(1)
        })
    });
    if others + channels as i64 <= most {
        return Ok(());
    }
    let plural = if channels == 1 { "" } else { "s" };
    // One without a list counts as one.
    let read_all = if channels > 1 && others < most {
        "Leave channels out to read all, drop"
    } else {
        "Drop"
    };
    Err(Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "subscription \"{name}\" with {channels} channel{plural} would give role {} more than pushy.max_channels_per_role allows, {most}",
            identifier::quoted(&identity::role_name(owner))
        ),
    )
    .detail(format!("Its other subscriptions have {others}."))
    .hint(format!("{read_all} subscriptions no longer used, or ask a superuser to raise pushy.max_channels_per_role.")))
}

fn create(call: Call) -> Result<String> {
    transaction::require_writable(c"pushy.subscription_create()");
    let name = call.text("name", 0)?;
    identifier::require_name("name", &name)?;
    let channels = arguments::channels(call, 1)?;
    let queue_name = call.opt_text(2)?;
    let from_oldest = call.opt_bool(3).unwrap_or(false);
    let topics = topic::patterns_argument(call, 4)?;
    let after = call.opt_text(5)?;
    let from = read_from(from_oldest, after.as_deref())?;
    let caller = identity::current_user();
    let queue = queue_name
        .map(|name| QueueReference::choose(&name, caller))
        .transpose()?;
    let chosen = Chosen {
        channels: channels.as_deref(),
        topics: topics.as_deref(),
    };
    Filter::of(chosen, caller)?;
    let count = channels.as_ref().map_or(1, Vec::len);
    let here = Home::here();
    let cursor = identity::as_owner(|| {
        let write = |plan: &Plan, number: i32, cursor: Cursor, owner: Oid| {
            let channels = channels.as_deref();
            let written = params![
                name.as_str(),
                channels.map_or(Answer::Null, array::of_text_bytes),
                queue.as_ref().map(|queue| queue.name.as_str()),
                cursor.epoch,
                cursor.tick,
                cursor.n,
                here.system,
                here.database,
                owner,
                identity::role_name(owner),
                queue.as_ref().map(|queue| queue.queue_id),
                queue.as_ref().map(|queue| queue.owner),
                number,
                here.extension,
                topics.as_deref().map_or(Answer::Null, array::of_text_bytes),
            ];
            spi::run(plan, written) > 0
        };
        loop {
            if let Some(subscription) = table::lock_owned(&name, caller)? {
                // After a restore its cursor is of another place: its reader gets a resync, as if nobody had created it
                // again.
                let cursor = if subscription.is_home {
                    subscription.cursor
                } else {
                    Cursor::NOWHERE
                };
                let has_owner = subscription.is_home && identity::role_exists(subscription.owner);
                let owner = if has_owner {
                    subscription.owner
                } else {
                    caller
                };
                // Channels before the role, as pushy.channel_grant() takes them: else the two would wait for each other.
                let had = subscription.channels.as_deref().unwrap_or_default();
                share_names(channels.as_deref(), had, caller)?;
                // A service that starts again waits for nobody.
                if !has_owner || count > subscription.channels.as_ref().map_or(1, Vec::len) {
                    require_share(owner, &name, count)?;
                }
                write(&CHANGE, subscription.number, cursor, owner);
                notice_other_queue(&subscription, queue.as_ref());
                if subscription.is_home {
                    say_that_it_stays(&name, from);
                }
                return Ok(cursor);
            }
            name_lock::take(Named::Subscription, name.as_bytes(), LockMode::Alone)?;
            if table::find(&name)?.is_some() {
                continue;
            }
            share_names(channels.as_deref(), &[], caller)?;
            require_share(caller, &name, count)?;
            let cursor = start(from)?;
            let number = next_number()?;
            if write(&INSERT, number, cursor, caller) {
                return Ok(cursor);
            }
        }
    })?;
    pending::subscriptions_changed();
    if queue.is_some() {
        // The relay reads anew for whom it works, and looks what there is for it.
        pending::privileges_changed(None);
        pending::logged();
    }
    Ok(cursor.shown())
}

/// Names of channels that one call holds at most.
const MOST_NAMES: usize = 64;

/// Waits for who closes one of these channels at this moment, if it is one of the first `MOST_NAMES` in order, and asks again of all whether
/// the caller may read them; not of those that it had.
fn share_names(channels: Option<&[Vec<u8>]>, had: &[Vec<u8>], caller: Oid) -> Result<()> {
    let mut new: Vec<Vec<u8>> = channels.unwrap_or_default().to_vec();
    new.retain(|channel| !had.contains(channel));
    // In one order, because two that create at the same time would wait for each other; and not so many that the server's table of
    // locks, which all share, would be full.
    new.sort();
    for channel in new.iter().take(MOST_NAMES) {
        name_lock::take(Named::Channel, channel, LockMode::Shared)?;
    }
    let chosen = Chosen {
        channels: Some(&new),
        topics: None,
    };
    Filter::of(chosen, caller)?;
    Ok(())
}

/// A queue that it has fed, and feeds no more, or one that it had not: a service may have chosen the name of another.
fn notice_other_queue(before: &table::Subscription, now: Option<&QueueReference>) {
    let name = |queue: &QueueReference| queue.name.clone();
    if before.queue.as_ref().map(name) == now.map(name) {
        return;
    }
    let does = match (&before.queue, now) {
        (Some(lost), Some(now)) => {
            format!(
                "feeds queue \"{}\" now, and no longer \"{}\"",
                now.name, lost.name
            )
        }
        (Some(lost), None) => format!("no longer feeds queue \"{}\"", lost.name),
        (None, now) => format!(
            "feeds queue \"{}\" now",
            now.map_or("", |now| now.name.as_str())
        ),
    };
    ereport::notice(
        &Error::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!("subscription \"{}\" {does}", before.name),
        )
        .hint("To keep both, give this declaration another name."),
    );
}

fn say_that_it_stays(name: &str, from: From) {
    let (argument, whence) = match from {
        From::Now => return,
        From::Oldest => ("from_oldest", "the oldest notice"),
        From::After(_) => ("after", "there"),
    };
    ereport::notice(
        &Error::new(
            SqlState::SUCCESSFUL_COMPLETION,
            format!("subscription \"{name}\" is there and keeps its cursor: {argument} is for a new one"),
        )
        .hint(format!(
            "To read from {whence}: SELECT pushy.subscription_drop({}), and create it again.",
            quote_literal(name)
        )),
    );
}
