//! The order of ready jobs: a job's first position is its number.

use crate::errors::Result;
use crate::job::history;
use crate::job::tables::live_job;
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

/// The highest number that is known to be taken; 0: none is.
pub fn highest() -> i64 {
    numbers::here().map_or(0, |slot| slot.positions.highest())
}

/// A job of this number was loaded: numbers of others go on behind it. Without the preload the dump has set the sequence.
#[cold]
pub fn pass_over(job: i64) {
    if let Some(slot) = numbers::here() {
        slot.positions.pass_over(job.min(i64::MAX / 2));
    }
}

fn highest_kept() -> Result<i64> {
    let mut highest = history::highest_id()?;
    let (now, table) = (snapshot::take_latest(), heap::open_for_reading("live_job")?);
    table.read_in_order("live_job_pkey", &[], &now, true, |row| {
        highest = highest.max(row.i64(live_job::ID));
        Ok(false)
    })?;
    Ok(highest)
}
