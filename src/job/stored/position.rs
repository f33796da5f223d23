//! The order of ready jobs: a job's first position is its number.

use pushy_core::loaded::{GIVEN_OUT, LOCAL};

use crate::errors::Result;
use crate::job::history;
use crate::job::tables::live_job;
use crate::params;
use crate::pg::heap::{self, Key};
use crate::pg::spi::{self, Plan};
use crate::pg::{snapshot, transaction, BuiltinOid};
use crate::shared::numbers::{self, Numbered};

static POSITIONS: Numbered = Numbered::new(&numbers::JOBS, highest_kept);

/// The next position, which is also the number of a new job. Drawn anew whenever a job becomes ready,
/// so that it goes behind those already waiting.
pub fn next() -> Result<i64> {
    POSITIONS.draw(1)
}

/// So many, one after another.
pub fn next_of(count: usize) -> Result<impl Iterator<Item = i64> + Clone> {
    let first = POSITIONS.draw(count)?;
    Ok(first..first + count as i64)
}

/// From which number on jobs may have been given theirs here, and the highest that one has.
pub fn drawn_from() -> Result<(i64, i64)> {
    POSITIONS.drawn_from(is_any_here)
}

static IS_ANY_HERE: Plan = Plan::new(
    "SELECT EXISTS (SELECT FROM pushy_internal.live_job) OR EXISTS (SELECT FROM pushy_internal.finished_job)",
    &[],
);

fn is_any_here() -> Result<bool> {
    Ok(transaction::with_latest_snapshot(|| {
        spi::connect(|spi| {
            spi.run_in_active_snapshot(&IS_ANY_HERE, params![])
                .row(0)
                .bool(1)
        })
    }))
}

/// A job that was loaded has this number or position: those of others go on behind it, unless it is none that is given out here. Without the preload the tables are asked.
#[cold]
pub fn pass_over(number: i64) {
    if let Some(slot) = numbers::here().filter(|_| number < GIVEN_OUT) {
        slot.positions.pass_over(number);
    }
}

// A job that was tried again has a position above its number, and of two with the same position one may be left waiting. From group to
// group of the index, which begins with queue and priority.
static HIGHEST_POSITION: Plan = Plan::new(
    "WITH RECURSIVE g AS ( \
        (SELECT j.queue_id, j.priority, j.position FROM pushy_internal.live_job j \
          WHERE j.position OPERATOR(pg_catalog.<) $1 \
          ORDER BY j.queue_id DESC, j.priority DESC, j.position DESC LIMIT 1) \
        UNION ALL \
        SELECT n.queue_id, n.priority, n.position FROM g, LATERAL ( \
            SELECT j.queue_id, j.priority, j.position FROM pushy_internal.live_job j \
             WHERE j.position OPERATOR(pg_catalog.<) $1 AND (j.queue_id, j.priority) OPERATOR(pg_catalog.<) (g.queue_id, g.priority) \
             ORDER BY j.queue_id DESC, j.priority DESC, j.position DESC LIMIT 1) n) \
     SELECT COALESCE(pg_catalog.max(g.position), 0) FROM g",
    &[BuiltinOid::INT8OID],
);

// To which a leased job may go back. All leases are read, once in the server's life.
static HIGHEST_LEASED: Plan = Plan::new(
    "SELECT COALESCE(pg_catalog.max(l.position), 0) FROM pushy_internal.lease l WHERE l.position OPERATOR(pg_catalog.<) $1",
    &[BuiltinOid::INT8OID],
);

/// Of all that says a job's number, whether or not the job is there: a restore may have brought the one without the other.
fn highest_kept() -> Result<i64> {
    let mut highest = history::highest_id(LOCAL)?;
    let now = snapshot::take_latest();
    for (name, index, number) in [
        ("live_job", "live_job_pkey", live_job::ID),
        ("failure", "failure_pkey", 1),
        ("promised_cancel", "promised_cancel_pkey", 1),
        ("lease", "lease_pkey", 1),
        ("job_log", "job_log_pkey", 1),
        ("checkpoint", "checkpoint_pkey", 1),
    ] {
        heap::open_for_reading(name)?.read_in_order(
            index,
            &[Key::int8_below(1, LOCAL)],
            &now,
            true,
            |row| {
                highest = highest.max(row.i64(number));
                Ok(false)
            },
        )?;
    }
    let position = transaction::with_latest_snapshot(|| {
        let positions = [&HIGHEST_POSITION, &HIGHEST_LEASED];
        let highest_of = |plan| {
            spi::connect(|spi| {
                spi.run_in_active_snapshot(plan, params![LOCAL])
                    .row(0)
                    .i64(1)
            })
        };
        positions.map(highest_of)
    });
    Ok(position.into_iter().fold(highest, i64::max))
}
