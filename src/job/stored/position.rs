//! The order of ready jobs: a job's first position is its number.

use crate::errors::Result;
use crate::job::history;
use crate::job::tables::live_job;
use crate::pg::spi::Plan;
use crate::pg::{heap, snapshot};
use crate::shared::numbers::{self, Numbered};

static POSITIONS: Numbered = Numbered::jobs(highest_kept);

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

/// No job has had a higher number here.
pub fn highest() -> Result<i64> {
    POSITIONS.highest()
}

/// A job that was loaded has this number or position: those of others go on behind it. Without the preload the tables are asked.
#[cold]
pub fn pass_over(number: i64) {
    if let Some(slot) = numbers::here() {
        slot.positions.pass_over(number.min(i64::MAX / 2));
    }
}

// A job that was tried again has a position above its number, and of two with the same position one may be left waiting. From group to
// group of the index, which begins with queue and priority.
static HIGHEST_POSITION: Plan = Plan::new(
    "WITH RECURSIVE g AS ( \
        (SELECT j.queue_id, j.priority, j.position FROM pushy_internal.live_job j WHERE j.position IS NOT NULL \
          ORDER BY j.queue_id DESC, j.priority DESC, j.position DESC LIMIT 1) \
        UNION ALL \
        SELECT n.queue_id, n.priority, n.position FROM g, LATERAL ( \
            SELECT j.queue_id, j.priority, j.position FROM pushy_internal.live_job j \
             WHERE j.position IS NOT NULL AND (j.queue_id, j.priority) OPERATOR(pg_catalog.<) (g.queue_id, g.priority) \
             ORDER BY j.queue_id DESC, j.priority DESC, j.position DESC LIMIT 1) n) \
     SELECT COALESCE(pg_catalog.max(g.position), 0) FROM g",
    &[],
);

/// Of all that says a job's number, whether or not the job is there: a restore may have brought the one without the other.
fn highest_kept() -> Result<i64> {
    let mut highest = history::highest_id()?;
    let now = snapshot::take_latest();
    for (name, index, number) in [
        ("live_job", "live_job_pkey", live_job::ID),
        ("failure", "failure_pkey", 1),
        ("promised_cancel", "promised_cancel_pkey", 1),
    ] {
        heap::open_for_reading(name)?.read_in_order(index, &[], &now, true, |row| {
            highest = highest.max(row.i64(number));
            Ok(false)
        })?;
    }
    let position = numbers::highest_in(&HIGHEST_POSITION)?;
    Ok(highest.max(position))
}
