//! What a scheduler does for history: gives windows of finished jobs their tables, empties those that are
//! over, removes single rows and payloads of notices that have expired.

use pushy_core::backoff;
use pushy_core::rest::Rest;

use crate::errors::Result;
use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::job::history::{self, POOL};
use crate::job::purge;
use crate::job::rotation::Window;
use crate::notice::oversize;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::standby;
use crate::pg::transaction;
use crate::pg::value::Timestamp;
use crate::pg::{clock, identity, interrupts, vacuum, BuiltinOid};
use crate::queue::dropped::{self, Dropped};
use crate::shared::database::DatabaseSlot;
use crate::worker::scheduler::{after_look, repeat};

/// Rows per transaction.
const ROWS: i64 = 1000;
/// So long (µs) single rows are removed before the rest of a round has its turn.
const STRETCH_US: i64 = 200_000;
/// A table that somebody uses is tried again after this time, and so are tables when all are taken.
pub(super) const AGAIN_US: i64 = 60_000_000;

/// Rows that stand alone, with their failures, logs and checkpoints; what somebody holds, by job_retry say, stays with all that belongs to it.
static EXPIRE: Plan = Plan::new(
    "WITH old AS MATERIALIZED ( \
            SELECT f.id, f.queue_id FROM ONLY pushy_internal.finished_job f WHERE f.expires_at OPERATOR(pg_catalog.<=) $1 \
             LIMIT $2 FOR UPDATE SKIP LOCKED), \
          free AS MATERIALIZED ( \
            SELECT x.job_id, x.queue_id, x.attempt FROM pushy_internal.failure x, old \
             WHERE x.job_id OPERATOR(pg_catalog.=) old.id AND x.queue_id OPERATOR(pg_catalog.=) old.queue_id \
               FOR UPDATE OF x SKIP LOCKED), \
          gone AS ( \
            DELETE FROM ONLY pushy_internal.finished_job f USING old WHERE f.id OPERATOR(pg_catalog.=) old.id \
               AND NOT EXISTS (SELECT 1 FROM pushy_internal.failure x WHERE x.job_id OPERATOR(pg_catalog.=) old.id AND x.queue_id OPERATOR(pg_catalog.=) old.queue_id \
                  AND NOT EXISTS (SELECT 1 FROM free WHERE free.job_id OPERATOR(pg_catalog.=) x.job_id AND free.queue_id OPERATOR(pg_catalog.=) x.queue_id \
                                     AND free.attempt OPERATOR(pg_catalog.=) x.attempt)) \
            RETURNING f.id, f.queue_id), \
          failures AS (DELETE FROM pushy_internal.failure x USING gone \
             WHERE x.job_id OPERATOR(pg_catalog.=) gone.id AND x.queue_id OPERATOR(pg_catalog.=) gone.queue_id RETURNING 1), \
          logs AS (DELETE FROM pushy_internal.job_log x USING gone \
             WHERE x.job_id OPERATOR(pg_catalog.=) gone.id AND x.queue_id OPERATOR(pg_catalog.=) gone.queue_id RETURNING 1), \
          checkpoints AS (DELETE FROM pushy_internal.checkpoint x USING gone \
             WHERE x.job_id OPERATOR(pg_catalog.=) gone.id AND x.queue_id OPERATOR(pg_catalog.=) gone.queue_id RETURNING 1) \
     SELECT (SELECT pg_catalog.count(*) FROM gone)",
    &[BuiltinOid::TIMESTAMPTZOID, BuiltinOid::INT8OID],
);

static NEXT: Plan = Plan::new(
    "SELECT (SELECT f.expires_at FROM ONLY pushy_internal.finished_job f ORDER BY f.expires_at LIMIT 1), \
            (SELECT pg_catalog.min(r.removes_after) FROM pushy_internal.rotation r \
              WHERE r.removes_after OPERATOR(pg_catalog.>) $1 AND r.pool OPERATOR(pg_catalog.=) $2), \
            (SELECT n.expires_at FROM pushy_internal.oversize_notice n ORDER BY n.expires_at LIMIT 1)",
    &[BuiltinOid::TIMESTAMPTZOID, BuiltinOid::TEXTOID],
);

/// Takes over tables that a restore has filled.
pub fn adopt() -> Result<()> {
    let found = transaction::run(|| identity::as_owner(|| POOL.tables_of_restore()))?;
    transaction::run_each(&found, |member| identity::as_owner(|| POOL.adopt(member)))?;
    Ok(())
}

/// Gives the window that an executor has asked for a table.
pub fn assign_wanted(database_slot: &DatabaseSlot) -> Result<()> {
    let wanted = database_slot.window_wanted.swap(0, Ordering::SeqCst);
    if wanted == 0 {
        return Ok(());
    }
    let assigned = transaction::run(|| identity::as_owner(|| POOL.assign(Timestamp(wanted))))?;
    if !assigned {
        let until = clock::now().plus_us(AGAIN_US).0;
        database_slot
            .windows_taken_until
            .store(until, Ordering::SeqCst);
    }
    Ok(())
}

/// Removes what is kept no longer; answers when something is to be removed next. `between` is done between two of its
/// transactions.
pub fn remove(
    database_slot: &DatabaseSlot,
    purge: &Cell<Option<Purge>>,
    between: &dyn Fn() -> Result<()>,
) -> Result<Option<i64>> {
    let began = clock::now();
    let more_at = Cell::new(None);
    let goes_on = |may_be_more: bool| {
        let now = clock::now();
        let is_over = may_be_more && now.since_us(began) as i64 > STRETCH_US;
        if is_over {
            more_at.set(Some(now.0));
        }
        may_be_more && !is_over
    };
    let mut is_held = !repeat(between, || {
        identity::as_owner(|| {
            let removed =
                spi::connect(|spi| spi.run(&EXPIRE, params![clock::now(), ROWS]).row(0).i64(1));
            Ok(goes_on(removed == ROWS))
        })
    })?;
    is_held |= !repeat(between, || {
        identity::as_owner(|| Ok(goes_on(oversize::expire(ROWS) == ROWS as u64)))
    })?;
    // One time for both steps: a window that ends between two times would be seen by neither.
    let now = clock::now();
    let again = empty_windows(now, between)?;
    let purge = purge_dropped(database_slot, purge, now, between)?;
    let next = transaction::run_unless_busy(|| {
        identity::as_owner(|| {
            Ok(spi::connect(|spi| {
                let table = spi.run(&NEXT, params![now, POOL.parent]);
                let row = table.row(0);
                let singles = [row.opt_i64(1), row.opt_i64(3)];
                let due = |at: i64| after_look(began, history::removal_due(Timestamp(at)));
                let singles = singles.into_iter().flatten().map(due);
                singles.chain(row.opt_i64(2)).min()
            }))
        })
    })?;
    is_held |= next.is_none();
    let come_back = is_held.then(|| now.plus_us(backoff::HELD_OF_SCHEDULER_US).0);
    Ok(next
        .flatten()
        .into_iter()
        .chain(again)
        .chain(purge)
        .chain(come_back)
        .chain(more_at.get())
        .min())
}

/// How far the removal of what dropped queues have left has come.
pub struct Purge {
    dropped: Dropped,
    tables: Vec<(String, Option<&'static str>)>,
    /// Tables that are done, and the page of the next.
    done: usize,
    page: i64,
    /// Nobody has held anything of it.
    is_gone: bool,
    took_us: i64,
}

/// Removes what dropped queues have left, some pages in a transaction, for a while, once the time has come; answers when that is, or when it
/// goes on.
fn purge_dropped(
    database_slot: &DatabaseSlot,
    under_way: &Cell<Option<Purge>>,
    now: Timestamp,
    between: &dyn Fn() -> Result<()>,
) -> Result<Option<i64>> {
    let come_back = Some(now.plus_us(backoff::HELD_OF_SCHEDULER_US).0);
    let rests = &database_slot.purge_rests_until;
    let mut purge = match under_way.take() {
        Some(purge) => purge,
        None => {
            let look = || Ok((dropped::all(), purge::tables()?));
            let looked = transaction::run_unless_busy(|| identity::as_owner(look))?;
            let Some((dropped, tables)) = looked else {
                return Ok(come_back);
            };
            let Some(dropped) = dropped else {
                return Ok(None);
            };
            let due = dropped::removal_due(dropped.first_at);
            let due = due.max(rests.load(Ordering::SeqCst));
            if due > now.0 {
                return Ok(Some(due));
            }
            Purge {
                dropped,
                tables,
                done: 0,
                page: 0,
                is_gone: true,
                took_us: 0,
            }
        }
    };
    let rest = |purge: &Purge| {
        let ended = clock::now();
        let took_us = purge.took_us + ended.since_us(now) as i64;
        let until = Rest::PURGE.until(took_us, ended.0);
        rests.store(until, Ordering::SeqCst);
        Ok(Some(until.max(ended.0 + AGAIN_US)))
    };
    while let Some((table, at)) = purge.tables.get(purge.done) {
        let delete = || Ok(purge::delete_some(table, *at, purge.page));
        let deleted = transaction::run_unless_busy(|| identity::as_owner(delete))?;
        let Some(deleted) = deleted else {
            return rest(&purge);
        };
        purge.is_gone &= !deleted.passed_over;
        purge.page = deleted.next.unwrap_or(0);
        purge.done += usize::from(deleted.next.is_none());
        interrupts::check();
        between()?;
        let took_us = clock::now().since_us(now) as i64;
        if took_us > STRETCH_US {
            purge.took_us += took_us;
            under_way.set(Some(purge));
            return Ok(Some(clock::now().0));
        }
    }
    if !purge.is_gone {
        return rest(&purge);
    }
    let forgotten = transaction::run_unless_busy(|| {
        identity::as_owner(|| {
            dropped::forget(&purge.dropped);
            Ok(())
        })
    })?;
    Ok(if forgotten.is_some() { None } else { come_back })
}

/// Empties the tables of windows that are over, each in a transaction of its own; answers when to try again those that
/// somebody uses.
fn empty_windows(now: Timestamp, between: &dyn Fn() -> Result<()>) -> Result<Option<i64>> {
    let windows = transaction::run_unless_busy(|| identity::as_owner(|| POOL.windows()))?;
    let Some(windows) = windows else {
        return Ok(Some(now.plus_us(backoff::HELD_OF_SCHEDULER_US).0));
    };
    let over: Vec<&Window> = windows
        .iter()
        .filter(|window| window.removes_after <= now)
        .collect();
    if over.is_empty() {
        return Ok(None);
    }
    let in_place = transaction::run(|| identity::as_owner(|| Ok(standby::may_be_there())))?;
    if !in_place {
        give_back()?;
    }
    let mut again = None;
    for window in over {
        between()?;
        let emptied = if in_place {
            empty_in_place(window, between)?
        } else {
            transaction::run_unless_busy(|| identity::as_owner(|| POOL.empty(window)))?
        };
        if emptied != Some(true) {
            again = Some(now.plus_us(AGAIN_US).0);
        }
    }
    Ok(again)
}

/// Deletes the rows of a window that is over one by one and vacuums the table, so that a standby's readers are not disturbed;
/// rows that somebody holds stay, and the window with them.
fn empty_in_place(window: &Window, between: &dyn Fn() -> Result<()>) -> Result<Option<bool>> {
    let mut from = Some(0);
    while let Some(page) = from {
        let next =
            transaction::run_unless_busy(|| identity::as_owner(|| POOL.delete_some(window, page)))?;
        let Some(next) = next else { return Ok(None) };
        from = next;
        interrupts::check();
        between()?;
    }
    vacuum::run(&[&window.member])?;
    transaction::run_unless_busy(|| identity::as_owner(|| POOL.set_free(window)))
}

/// Truncates the tables that were emptied in place, when no standby is there any more.
fn give_back() -> Result<()> {
    let free = transaction::run_unless_busy(|| identity::as_owner(|| POOL.free()))?;
    for window in free.iter().flatten() {
        transaction::run_unless_busy(|| identity::as_owner(|| POOL.empty(window)))?;
    }
    Ok(())
}
