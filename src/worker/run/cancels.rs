//! Carrying out cancels that were promised and struck no running job.

use crate::errors::Result;
use std::sync::atomic::Ordering;

use crate::job::claimed::Claimed;
use crate::job::moves::cancel;
use crate::job::promise;
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{database, identity};
use crate::shared::cancels::Promise;
use crate::shared::database::DatabaseSlot;
use crate::shared::Shared;
use crate::worker::outcomes::Outcomes;

/// Carries out the cancels of jobs of a batch, which holds them no more: what it gave up, put off or rolled back
/// must not run after all. What somebody has locked is left to the scheduler.
pub(in crate::worker) fn cancel_all_of(
    shared: &Shared,
    claimed: &[Claimed],
    outcomes: &Outcomes,
) -> Result<()> {
    let promises: Vec<(Promise, Option<Timestamp>)> = shared
        .cancels
        .of(database::current())
        .filter_map(|promise| {
            let index = claimed.iter().position(|job| job.id == promise.job)?;
            Some((promise, outcomes.started_at(index)))
        })
        .collect();
    let done = cancel_all(shared, &promises);
    if !matches!(done, Ok(true)) {
        leave(shared);
    }
    done.map(|_| ())
}

/// Takes up what was promised in the server's life before: before the first job is claimed, or judged. False when there is
/// no room for all of it yet.
pub fn recall(database_slot: &DatabaseSlot) -> Result<bool> {
    if database_slot.cancels_recalled.load(Ordering::SeqCst) {
        return Ok(true);
    }
    let all = transaction::run(|| identity::as_owner(|| promise::recall(database_slot)))?;
    if all {
        database_slot.cancels_recalled.store(true, Ordering::SeqCst);
    }
    Ok(all)
}

/// Carries out what can be, each with when its job began, as far as that is known; true when that was all.
fn cancel_all(shared: &Shared, promises: &[(Promise, Option<Timestamp>)]) -> Result<bool> {
    if promises.is_empty() {
        return Ok(true);
    }
    let done = transaction::run_each(promises, |(promise, started_at)| {
        identity::as_owner(|| cancel::cancel_promised(promise.job, *started_at))
    })?;
    let done: Vec<bool> = done.into_iter().map(|done| done == Some(true)).collect();
    for ((promise, _), _) in promises.iter().zip(&done).filter(|(_, done)| **done) {
        shared.cancels.carried_out(*promise);
    }
    Ok(!done.contains(&false))
}

/// Cancels of a turn.
const MOST_AT_ONCE: usize = 500;

/// Carries out the cancels of some jobs that no executor holds, in the order of their numbers behind that of `after`: true when that was all
/// of these, and the last of them where there are more. (When those began that their executor has let go of is not known
/// here.)
pub fn cancel_some(shared: &Shared, after: i64) -> Result<(bool, Option<i64>)> {
    let mut promises: Vec<_> = unheld(shared)
        .filter(|promise| promise.job > after)
        .map(|promise| (promise, None))
        .collect();
    promises.sort_unstable_by_key(|(promise, _)| promise.job);
    let has_more = promises.len() > MOST_AT_ONCE;
    promises.truncate(MOST_AT_ONCE);
    let last = promises.last().map(|(promise, _)| promise.job);
    let all = cancel_all(shared, &promises)?;
    Ok((all, last.filter(|_| has_more)))
}

/// Leaves cancels to the scheduler, if there are any.
pub fn leave(shared: &Shared) {
    if unheld(shared).next().is_none() {
        return;
    }
    if let Some(database_slot) = shared.find_database(database::current()) {
        shared.ask_for_cancels(database_slot);
    }
}

fn unheld(shared: &Shared) -> impl Iterator<Item = Promise> + '_ {
    let database = database::current();
    shared.cancels.of(database).filter(move |promise| {
        let mut holding = shared.executors_holding(database, promise.job);
        holding.next().is_none()
    })
}
