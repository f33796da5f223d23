//! Promises of cancels in the table: who was answered that a job which an executor holds will be cancelled finds it so after a
//! crash, a restart and a promotion too. What runs looks into shared memory (`shared::cancels`), and where that asks for a cancel
//! the table decides; it is read in whole once in a life of the server, before anything is claimed, and after a load.

use std::sync::atomic::Ordering;

use rustc_hash::FxHashSet;

use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::live;
use crate::params;
use crate::pg::heap::{self, Asked, Key};
use crate::pg::snapshot::{self, Snapshot};
use crate::pg::spi::{self, Plan};
use crate::pg::{database, BuiltinOid};
use crate::shared::cancels::Promise;
use crate::shared::database::DatabaseSlot;
use crate::shared::{self, pending};

static WRITE: Plan = Plan::new(
    "INSERT INTO pushy_internal.promised_cancel (job_id, queue_id, enqueued_at) VALUES ($1, $2, $3)",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Those that were loaded with a dump are below zero until their queue is at home.
static ALL: Plan = Plan::new(
    "SELECT DISTINCT p.job_id FROM pushy_internal.promised_cancel p WHERE p.job_id OPERATOR(pg_catalog.>) 0",
    &[],
);

/// Promises the cancel of a job with the commit of this transaction. As the extension's owner, as are the others.
pub fn write(job: &Claimed, queue_id: i32) {
    spi::run(&WRITE, params![job.id, queue_id, job.enqueued_at]);
}

/// The job is cancelled, made to run again, or gone, with this transaction at the latest. What others just write or remove is
/// theirs, and not waited for. False when nothing was promised: what shared memory asks for was carried out before. Who has the
/// job's row decides by that, because nobody else removes the promise meanwhile.
pub fn forget(job: i64) -> Result<bool> {
    forget_as_of(job, &snapshot::take_latest())
}

/// The same of what was promised by then: of a job that was not there later.
pub fn forget_as_of(job: i64, then: &Snapshot) -> Result<bool> {
    let table = heap::open("promised_cancel")?;
    let keys = [Key::int8_equals(1, job)];
    let found = table.lock_in_order(
        "promised_cancel_pkey",
        &keys,
        then,
        Asked::default(),
        |_| false,
        |_, tid| Ok(tid),
    )?;
    if !found.rows.is_empty() {
        table.delete(found.rows.into_iter());
        heap::advance_command();
        return Ok(true);
    }
    Ok(found.passed_over)
}

/// Puts into shared memory what was promised before the server started, unless somebody has; false when there is no room
/// for all of it yet. It counts with the commit of this transaction of a worker; `cancels_recalled` may be said after that.
pub fn recall(database_slot: &DatabaseSlot) -> Result<bool> {
    if database_slot.cancels_recalled.load(Ordering::SeqCst) {
        return Ok(true);
    }
    recall_again(database_slot)
}

/// The same, whoever has: rows may have come without a commit of ours.
#[cold]
pub fn recall_again(database_slot: &DatabaseSlot) -> Result<bool> {
    let here = database::current();
    let ask = |job: i64| pending::recall_cancel(here, job);
    // Until the commit they are requests, for which nobody cancels a job, and who has met one has left the job to this transaction, which
    // announces it.
    let take_back = |promise: Promise| {
        if let Some(live) = live::get(promise.job)? {
            live::announce_at_end(&live);
        }
        pending::take_back(promise);
        Ok(())
    };
    let all = take_up(database_slot, ask, take_back)?;
    if !all {
        database_slot
            .cancels_recalled
            .store(false, Ordering::SeqCst);
    }
    Ok(all)
}

/// The same by a session that is about to run jobs: at once, because its transaction may be open for long, and be rolled back.
pub fn recall_at_once(database_slot: &DatabaseSlot) -> Result<()> {
    if database_slot.cancels_recalled.load(Ordering::SeqCst) {
        return Ok(());
    }
    let (here, cancels) = (database::current(), &shared::expect().cancels);
    let ask = |job: i64| {
        let promise = cancels.ask_again(here, job)?;
        cancels.commit(promise);
        Some(promise)
    };
    // An executor that has met it may have left the job to whoever carries it out.
    let take_back = |promise: Promise| {
        cancels.carried_out(promise);
        if let Some(live) = live::get(promise.job)? {
            live::announce(&live);
        }
        Ok(())
    };
    let all = take_up(database_slot, ask, take_back)?;
    // Behind the requests: a scheduler that has looked before has not seen them.
    if cancels.of(here).next().is_some() {
        shared::expect().ask_for_cancels(database_slot);
    }
    database_slot.cancels_recalled.store(all, Ordering::SeqCst);
    Ok(())
}

/// Asks for what is in the table and not in shared memory; false when there is no room for all of it.
fn take_up(
    database_slot: &DatabaseSlot,
    ask: impl Fn(i64) -> Option<Promise>,
    take_back: impl Fn(Promise) -> Result<()>,
) -> Result<bool> {
    let (here, cancels) = (database::current(), &shared::expect().cancels);
    let promised = read_all();
    if !promised.is_empty() {
        database_slot
            .cancels_requested
            .store(true, Ordering::SeqCst);
    }
    let missing = |job: &i64| !cancels.includes(here, *job) && !pending::has_asked(*job);
    let asked: Vec<_> = promised.into_iter().filter(missing).map(ask).collect();
    let all = asked.iter().all(Option::is_some);
    if !asked.is_empty() {
        // Somebody may have carried one out since the table was read, and job_retry may have made that job run again, which found
        // nothing to forget in shared memory.
        let still = read_all();
        let asked = asked.into_iter().flatten();
        let is_over = |promise: &Promise| !still.contains(&promise.job);
        asked.filter(is_over).try_for_each(take_back)?;
    }
    Ok(all)
}

fn read_all() -> FxHashSet<i64> {
    spi::connect(|spi| {
        let all = spi.run(&ALL, params![]);
        all.rows().map(|row| row.i64(1)).collect()
    })
}
