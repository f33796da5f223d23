//! A queue that subscribes: each notice becomes a job, exactly once, because the cursor moves in the same transaction.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pushy_core::json;

use crate::errors::{Error, Result, SqlState};
use crate::job::moves::{enqueue, retry_or_discard};
use crate::log::read::{self, LogItem, Notice, Stretch};
use crate::log::subscription::read::{start, Start};
use crate::log::subscription::table::{self, Subscription};
use crate::log::subscription::users;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction;
use crate::pg::{clock, ereport, identity, jsonb, BuiltinOid};
use crate::shared::database::DatabaseSlot;

/// Jobs of one transaction.
const MOST_AT_ONCE: usize = 1_000;

/// What came of an attempt to enqueue what a subscription has.
pub(super) enum SinkProgress {
    All,
    /// There may be more.
    Some,
    /// Somebody holds its row, or something else it needs.
    Held,
}

static STOP: Plan = Plan::new(
    "UPDATE pushy_internal.subscription SET stopped = $2 WHERE name OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::TEXTOID, BuiltinOid::TEXTOID],
);

/// One transaction of jobs for one subscription. `rests`: until when (µs) it is not looked at again; 0: it may be.
pub(super) fn run_sink(
    database_slot: &DatabaseSlot,
    name: &str,
    rests: &Cell<i64>,
) -> Result<SinkProgress> {
    let tried = Cell::new(None);
    let sink = transaction::run(|| {
        identity::as_owner(|| match table::find_if_free(name)? {
            Some(subscription) => {
                tried.set(Some(subscription.version));
                Ok(if fill(&subscription, rests)? {
                    SinkProgress::Some
                } else {
                    SinkProgress::All
                })
            }
            None if table::find(name)?.is_some() => Ok(SinkProgress::Held),
            None => Ok(SinkProgress::All),
        })
    });
    match sink {
        Ok(sink) => Ok(sink),
        Err(failure) if failure.is_busy() => Ok(SinkProgress::Held),
        // The server lacks something: the relay waits and tries again.
        Err(failure) if retry_or_discard::is_infrastructure(failure.sqlstate) => Err(failure),
        Err(failure) => {
            database_slot.log.has_stopped.store(true, Ordering::SeqCst);
            stop(name, tried.get(), &failure)?;
            Ok(SinkProgress::All)
        }
    }
}

/// Reading what a subscription may hear takes no more than a tenth of the relay's time, once it takes as long as a turn.
fn resting_until(took_us: i64, now: i64) -> i64 {
    const TURN_US: i64 = 5_000;
    const SHARE: i64 = 10;
    const LONGEST_US: i64 = 1_000_000;
    if took_us < TURN_US {
        return 0;
    }
    now + (SHARE * took_us).min(LONGEST_US)
}

fn fill(subscription: &Subscription, rests: &Cell<i64>) -> Result<bool> {
    let Some(held) = &subscription.queue else {
        return Ok(false);
    };
    let queue = held.open(subscription.owner)?;
    if !subscription.is_home {
        // As with queues: nothing is done twice by a copy, until somebody declares it here.
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "it was created in another database or cluster",
        )
        .hint("Run pushy.subscription_create again."));
    }
    if let Some(renewed) = held.renewed(subscription.home.system, &queue.definition)? {
        // Who registered or renamed it could not write that.
        users::hold(subscription, held, &renewed);
        return Ok(true);
    }
    let Start::At(from) = start(subscription)? else {
        return Ok(false);
    };
    let began = clock::now();
    let filter = subscription.filter()?;
    let now = clock::now();
    rests.set(resting_until(now.0 - began.0, now.0));
    let mut jobs = Vec::new();
    let reached = read::after(from, &filter, Stretch::TURN, |found| {
        let (args, cause) = match found {
            LogItem::Resync(_) => (br#"{"resync":true}"#.to_vec(), None),
            LogItem::Notice(notice) => (args(&notice), notice.cause),
        };
        jobs.push((jsonb::from_json(&args), cause));
        Ok(jobs.len() < MOST_AT_ONCE)
    })?;
    if reached.passed > from {
        enqueue::add_for(&queue, subscription.owner, &jobs)?;
        table::move_to(subscription, reached.passed, Some(clock::now().0));
    }
    if subscription.stopped.is_some() {
        spi::run(&STOP, params![subscription.name.as_str(), None::<&str>]);
    }
    Ok(jobs.len() >= MOST_AT_ONCE || reached.is_cut)
}

/// What a job of a notice is given, in the database's encoding: in SQL_ASCII any bytes.
fn args(notice: &Notice) -> Vec<u8> {
    let mut args = br#"{"channel":"#.to_vec();
    json::quoted(&notice.channel, &mut args);
    if let Some(topic) = &notice.topic {
        args.extend_from_slice(br#","topic":"#);
        json::quoted(topic, &mut args);
    }
    args.extend_from_slice(br#","payload":"#);
    json::quoted(&notice.payload, &mut args);
    args.push(b'}');
    args
}

/// Its jobs cannot be enqueued: said in its row, and in the log of the server. `tried`: the row that was found so; one that was written
/// since may be mended, or another's of that name.
fn stop(name: &str, tried: Option<u32>, failure: &Error) -> Result<()> {
    let said = transaction::run_unless_busy(|| {
        identity::as_owner(|| {
            // Whoever holds its row declares or drops it: it is said with the next notice, if it is still so.
            let subscription = table::find_if_free(name)?;
            let is_new = subscription.is_some_and(|subscription| {
                tried == Some(subscription.version)
                    && subscription.stopped.as_deref() != Some(failure.message.as_str())
            });
            if is_new {
                spi::run(&STOP, params![name, failure.message.as_str()]);
            }
            Ok(is_new)
        })
    })?;
    if said == Some(true) {
        ereport::log(
            &Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("subscription \"{name}\" gives no jobs to its queue: {}", failure.message),
            )
            .hint("Its notices wait in the event log, for as long as that keeps them. It is tried again with the next notice."),
        );
    }
    Ok(())
}
