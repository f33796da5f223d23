//! The functions behind the views pushy.subscriptions and pushy.log.

use std::sync::atomic::Ordering;

use pushy_core::histogram;
use pushy_core::log::cursor::Cursor;

use super::behind::{Behind, Budget};
use super::events::{self, EventFetcher};
use super::filter::Filter;
use super::log_snapshot::LogSnapshot;
use super::parts::{log_table, tick_table, PARTS};
use super::subscription::table::{self, Subscription};
use crate::channel::Channel;
use crate::errors::{quote_literal, Result, SqlState};
use crate::obstacle::{self, Finding};
use crate::pg::function::{Answer, Call};
use crate::pg::value::{Interval, Timestamp};
use crate::pg::{array, clock, database, identifier, identity, size, text, Oid};
use crate::{row, shared, sql_function};

sql_function!(pushy_log_histogram_v1, |call| log_histogram(call));

/// The bounds of what a monitor is told: 2^6 µs to 2^27.
const POWERS: std::ops::Range<u32> = 6..28;

fn log_histogram(call: Call) -> Result<Answer> {
    let here = database::current();
    let slot = shared::get().and_then(|shared| shared.find_database(here));
    call.answer_rows(|rows| {
        let Some(slot) = slot else {
            return Ok(());
        };
        let counts = slot.log.tick_delays.counts();
        for power in POWERS {
            let seconds = (1u64 << power) as f64 / 1e6;
            rows.put(row![seconds, histogram::below(&counts, power) as i64]);
        }
        let all: u64 = counts.iter().sum();
        rows.put(row![f64::INFINITY, all as i64]);
        Ok(())
    })
}

sql_function!(pushy_subscription_rows_v2, |call| subscription_rows(call));

fn subscription_rows(call: Call) -> Result<Answer> {
    let caller = identity::current_user();
    let sees_all = identity::reads_all_statistics(caller);
    call.answer_rows(|rows| {
        let (subscriptions, filters) = identity::as_owner(|| {
            let mut subscriptions = table::all()?;
            subscriptions.retain(|subscription| sees_all || subscription.is_owner(caller));
            let filters = subscriptions
                .iter()
                .map(heard)
                .collect::<Result<Vec<_>>>()?;
            Ok((subscriptions, filters))
        })?;
        let (lost, behind) = identity::as_owner(|| behind(&subscriptions, &filters))?;
        let now = clock::now();
        let obstacle = obstacle::of_relay();
        for ((subscription, (_, denied)), lag) in subscriptions.iter().zip(&filters).zip(behind) {
            let resync = !subscription.is_home || subscription.cursor < lost || lag.has_missed;
            let unfed = unfed(subscription)?;
            let (condition, fix) = condition(
                caller,
                subscription,
                resync,
                denied.as_deref(),
                unfed.as_ref(),
                obstacle.as_ref(),
            );
            // Shown at once, before the relay comes to the next notice.
            let stopped = unfed.map(|unfed| unfed.reason);
            let owner = subscription.shown_owner();
            // What is said where the owner may not read is not the owner's to count.
            let is_shown = denied.is_none() || sees_all;
            rows.put(row![
                subscription.name.as_str(),
                owner
                    .as_deref()
                    .map_or(Answer::Null, |owner| Answer::Datum(text::to_name(owner))),
                subscription
                    .channels
                    .as_deref()
                    .map_or(Answer::Null, array::of_text_bytes),
                subscription.queue.as_ref().map(|queue| queue.name.as_str()),
                subscription.cursor.shown(),
                is_shown.then_some(lag.events),
                is_shown.then_some(lag.bytes),
                lag.since
                    .filter(|_| is_shown)
                    .map(|since| Interval(now.since_us(since) as i64)),
                resync,
                stopped.as_deref().or(subscription.stopped.as_deref()),
                condition,
                fix,
                Timestamp(subscription.created_at),
                subscription.acked_at.map(Timestamp),
                subscription
                    .topics
                    .as_deref()
                    .map_or(Answer::Null, array::of_text_bytes),
            ]);
        }
        Ok(())
    })
}

/// What a subscription hears, and what to do where its owner may not read all of its channels: then what they have counts,
/// because all of it waits; for monitors, and for nobody else.
fn heard(subscription: &Subscription) -> Result<(Filter, Option<String>)> {
    match subscription.filter() {
        Ok(filter) => Ok((filter, None)),
        Err(error) if error.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE => {
            let fix = error.hint.unwrap_or(error.message);
            let anybodys = Filter::of_anybody(subscription.chosen());
            Ok((anybodys, Some(fix)))
        }
        Err(error) => Err(error),
    }
}

/// Up to where the log was emptied, and what each subscription has not read.
fn behind(
    subscriptions: &[Subscription],
    filters: &[(Filter, Option<String>)],
) -> Result<(Cursor, Vec<Behind>)> {
    let mut behind = vec![Behind::default(); subscriptions.len()];
    if subscriptions.is_empty() {
        return Ok((Cursor::NOWHERE, behind));
    }
    let (log, tables) = events::open()?;
    let events = EventFetcher::new(&tables);
    let mut budget = Budget::new();
    log.each_tick(|tick| {
        for ((behind, subscription), (filter, _)) in
            behind.iter_mut().zip(subscriptions).zip(filters)
        {
            behind.count(&events, &tick, subscription.cursor, filter, &mut budget)?;
        }
        Ok(true)
    })?;
    Ok((log.lost, behind))
}

/// The call that declares it as it is, so that its reader gets a resync.
fn created_again(subscription: &Subscription) -> String {
    let mut call = quote_literal(&subscription.name);
    if let Some(channels) = &subscription.channels {
        let idents: Vec<String> = channels
            .iter()
            .map(|channel| quote_literal(&Channel::shown_ident(channel)))
            .collect();
        call += &format!(", channels => ARRAY[{}]", idents.join(", "));
    }
    if let Some(topics) = &subscription.topics {
        let patterns: Vec<String> = topics
            .iter()
            .map(|pattern| quote_literal(&text::shown(pattern)))
            .collect();
        call += &format!(", topics => ARRAY[{}]", patterns.join(", "));
    }
    if let Some(queue) = &subscription.queue {
        call += &format!(", queue => {}", quote_literal(&queue.name));
    }
    format!("SELECT pushy.subscription_create({call})")
}

/// A statement for its owner only: whoever else ran it would take it over, with what its owner chose.
fn from_elsewhere(caller: Oid, subscription: &Subscription) -> String {
    if subscription.owner_here() == Some(caller) {
        return created_again(subscription);
    }
    let name = quote_literal(&subscription.name);
    format!(
        "Its owner, {}, runs pushy.subscription_create({name}, …) again or SELECT * FROM pushy.resume_after_restore(); or end it: SELECT pushy.subscription_drop({name})",
        identifier::quoted(&subscription.owner_name)
    )
}

/// What keeps its notices from becoming jobs of its queue.
fn unfed(subscription: &Subscription) -> Result<Option<Finding>> {
    match (&subscription.queue, subscription.owner_here()) {
        (Some(queue), Some(owner)) if subscription.is_home => {
            queue.obstacle(owner, "pushy.subscription_create")
        }
        _ => Ok(None),
    }
}

/// The state of a subscription, and what makes it active.
fn condition(
    caller: Oid,
    subscription: &Subscription,
    resync: bool,
    denied: Option<&str>,
    unfed: Option<&Finding>,
    obstacle: Option<&Finding>,
) -> (&'static str, Option<String>) {
    if !subscription.is_home {
        return ("elsewhere", Some(from_elsewhere(caller, subscription)));
    }
    if subscription.owner_here().is_none() {
        // Nobody else may read it; a superuser who creates it again takes it over, with its cursor.
        let again = created_again(subscription);
        let fix = if identity::is_superuser(caller) {
            again
        } else {
            format!("Ask a superuser to take it over, with its cursor, or to drop it; as a superuser: {again}")
        };
        return ("ownerless", Some(fix));
    }
    if let Some(fix) = denied {
        return ("denied", Some(fix.to_owned()));
    }
    if let Some(unfed) = unfed {
        return ("stopped", unfed.fix.clone());
    }
    if subscription.stopped.is_some() {
        let fix = "Mend what column stopped says: it is tried again when a queue or a privilege changes, and with the next notice.";
        return ("stopped", Some(fix.to_owned()));
    }
    if let Some(obstacle) = obstacle {
        let fix = obstacle.fix.as_ref().unwrap_or(&obstacle.reason);
        return ("no_relay", Some(fix.clone()));
    }
    if resync {
        // No statement: who runs the read must also read the tables, which only the reader's program does.
        let fix = if subscription.queue.is_some() {
            "Nothing is to be run: its queue is about to get a job with resync, whose handler reads the tables anew"
        } else {
            "Let its reader go on: its next read begins with a row with resync, which says to read the tables anew and to acknowledge"
        };
        return ("resync", Some(fix.to_owned()));
    }
    ("active", None)
}

/// Bytes on disk, ticks included.
fn size() -> i64 {
    let sizes = (0..PARTS)
        .map(|part| size::total_bytes(log_table(part)) + size::total_bytes(tick_table(part)));
    sizes.sum()
}

sql_function!(pushy_log_bounds_v1, |call| log_bounds(call));

/// What of pushy.log costs no look at its ticks but the first.
fn log_bounds(call: Call) -> Result<Answer> {
    let (bytes, first) = identity::as_owner(|| {
        let mut first = None;
        LogSnapshot::take()?.each_tick(|tick| {
            first = Some(tick.cursor(0));
            Ok(false)
        })?;
        Ok((size(), first))
    })?;
    Ok(call.answer_row(row![bytes, first.map(|cursor| cursor.to_string())]))
}

sql_function!(pushy_log_row_v1, |call| log_row(call));

fn log_row(call: Call) -> Result<Answer> {
    let (bytes, all, first, last) = identity::as_owner(|| {
        let log = LogSnapshot::take()?;
        let bytes = size();
        let mut all = 0i64;
        let (mut first, mut last) = (None, None);
        // A hundred thousand take about 0.1 s: for people who look.
        log.each_tick(|tick| {
            all += i64::from(tick.events);
            first.get_or_insert((tick.cursor(0), tick.at));
            last = Some((tick.last(), tick.at));
            Ok(true)
        })?;
        Ok((bytes, all, first, last))
    })?;
    let database_slot = shared::get().and_then(|shared| shared.find_database(database::current()));
    let emitted = database_slot.map(|database_slot| database_slot.log.emitted());
    let emitted = emitted.filter(|emitted| *emitted > Cursor::START);
    let running = database_slot.filter(|database_slot| database_slot.relay().is_entered());
    Ok(call.answer_row(row![
        bytes,
        all,
        first.map(|(cursor, _)| cursor.to_string()),
        last.map(|(cursor, _)| cursor.to_string()),
        first.map(|(_, at)| at),
        last.map(|(_, at)| at),
        emitted.map(|emitted| emitted.to_string()),
        running.map(|database_slot| database_slot.log.pending.load(Ordering::SeqCst) as i64),
        database_slot.is_some_and(|database_slot| database_slot
            .log
            .part()
            .is_some_and(|part| database_slot.log.is_full(part))),
    ]))
}
