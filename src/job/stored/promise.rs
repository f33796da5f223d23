//! Promises of cancels in the table: who was answered that a job which an executor holds will be cancelled finds it so after a
//! crash, a restart and a promotion too. What runs looks into shared memory only (`shared::cancels`); the table is
//! read once in a life of the server, before anything is claimed.

use std::sync::atomic::Ordering;

use rustc_hash::FxHashSet;

use crate::errors::Result;
use crate::params;
use crate::pg::heap::{self, Asked, Key};
use crate::pg::spi::{self, Plan};
use crate::pg::{database, snapshot, BuiltinOid};
use crate::shared;
use crate::shared::cancels::Recalled;
use crate::shared::database::DatabaseSlot;

static WRITE: Plan = Plan::new(
    "INSERT INTO pushy_internal.promised_cancel (job_id, queue_id) VALUES ($1, $2)",
    &[BuiltinOid::INT8OID, BuiltinOid::INT4OID],
);

/// Those that were loaded with a dump are below zero until their queue is at home.
static ALL: Plan = Plan::new(
    "SELECT DISTINCT p.job_id FROM pushy_internal.promised_cancel p WHERE p.job_id OPERATOR(pg_catalog.>) 0",
    &[],
);

/// Promises the cancel of a job with the commit of this transaction. As the extension's owner, as are the others.
pub fn write(job: i64, queue_id: i32) {
    spi::run(&WRITE, params![job, queue_id]);
}

/// The job is cancelled, or gone, with this transaction at the latest. What others just write or remove is theirs, and not
/// waited for.
pub fn forget(job: i64) -> Result<()> {
    let table = heap::open("promised_cancel")?;
    let (keys, now) = ([Key::int8_equals(1, job)], snapshot::take_latest());
    let found = table.lock_in_order(
        "promised_cancel_pkey",
        &keys,
        &now,
        Asked::default(),
        |_| false,
        |_, tid| Ok(tid),
    )?;
    if !found.rows.is_empty() {
        table.delete(found.rows.into_iter());
        heap::advance_command();
    }
    Ok(())
}

/// Puts into shared memory what was promised before the server started, unless somebody has; false when there is no room
/// for all of it yet.
pub fn recall(database_slot: &DatabaseSlot) -> bool {
    database_slot.cancels_recalled.load(Ordering::SeqCst) || recall_again(database_slot)
}

/// The same, whoever has: rows may have come without a commit of ours.
#[cold]
pub fn recall_again(database_slot: &DatabaseSlot) -> bool {
    let cancels = &shared::expect().cancels;
    let here = database::current();
    let promised = read_all();
    if !promised.is_empty() {
        database_slot
            .cancels_requested
            .store(true, Ordering::SeqCst);
    }
    let mut all = true;
    let mut recalled = Vec::new();
    for job in promised {
        match cancels.recall(here, job) {
            Some(Recalled::Now(promise)) => recalled.push(promise),
            Some(Recalled::WasHere) => {}
            None => all = false,
        }
    }
    if !recalled.is_empty() {
        // Somebody may have carried one out since the table was read, and job_retry may have made that job run again, which found
        // nothing to forget in shared memory.
        let still = read_all();
        recalled.retain(|promise| !still.contains(&promise.job));
        recalled
            .into_iter()
            .for_each(|promise| cancels.carried_out(promise));
    }
    database_slot.cancels_recalled.store(all, Ordering::SeqCst);
    all
}

fn read_all() -> FxHashSet<i64> {
    spi::connect(|spi| {
        let all = spi.run(&ALL, params![]);
        all.rows().map(|row| row.i64(1)).collect()
    })
}
