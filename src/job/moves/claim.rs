//! available → running: a row lock in an open transaction, which vanishes with its holder.

use std::cell::Cell;

use pushy_core::job_state::{JobEvent, JobState};

use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::tables::live_job;
use crate::pg::function::Answer;
use crate::pg::heap::{self, Asked, Key, Locked};
use crate::pg::memory::Context;
use crate::pg::per_process::PerProcess;
use crate::pg::snapshot::Snapshot;
use crate::pg::spi::{Row, Tid};

// Of what the index of ready jobs holds, and without a word in the row.
const _: JobState = JobState::Available.after(JobEvent::Claim);

/// How much a claim may still take.
#[derive(Clone, Copy)]
pub struct ClaimLimit {
    pub jobs: u32,
    /// Of arguments; the job that passes it is the last one.
    pub bytes: usize,
}

impl ClaimLimit {
    pub const ONE: Self = Self {
        jobs: 1,
        bytes: usize::MAX,
    };

    pub fn is_used_up(&self) -> bool {
        self.jobs == 0 || self.bytes == 0
    }

    pub fn less(self, claimed: &[Claimed]) -> Self {
        let bytes = claimed.iter().map(|job| job.args_bytes).sum();
        Self {
            jobs: self.jobs - claimed.len() as u32,
            bytes: self.bytes.saturating_sub(bytes),
        }
    }
}

/// The file of the table when this process last claimed jobs.
static CLAIMED_IN: PerProcess<Cell<u32>> = PerProcess::new(Cell::new(0));

/// In which file of the table the jobs that this process has claimed last were where their `tid` says: a handler of a superuser may have
/// rewritten the table in this very transaction.
pub fn claimed_in() -> u32 {
    CLAIMED_IN.get()
}

/// Locks ready jobs of one priority from position `from` on, in order, as many as the limit has, skipping those that
/// others hold, and says whether there were any; `held` is given the number and position of each of these. Arguments are copied into
/// `memory`. The caller has taken the watermark before it took the snapshot.
///
/// Reads the index live_job_ready from the watermark on: without it each claim walks over the dead
/// entries of all jobs done since the last vacuum. As `SELECT … FOR UPDATE SKIP LOCKED` by SPI this
/// answered the newest version of a row, whose position may lie beyond jobs not looked at, and cost a
/// third more.
pub fn claim(
    queue_id: i32,
    priority: usize,
    from: u64,
    limit: ClaimLimit,
    snapshot: &Snapshot,
    memory: &Context,
    mut held: impl FnMut(i64, i64),
) -> Result<Locked<Claimed>> {
    let table = heap::open("live_job")?;
    heap::check_columns(&table, live_job::COLUMNS, &live_job::CHECKED)?;
    CLAIMED_IN.set(table.file());
    let from = from.min(i64::MAX as u64) as i64;
    let mut claimed = Locked {
        rows: Vec::with_capacity(limit.jobs as usize),
        passed_over: false,
        is_enough: false,
    };
    for (from, below) in stretches(from, limit.jobs) {
        let mut keys = vec![
            Key::int4_equals(1, queue_id),
            Key::int2_equals(2, priority as i16),
            Key::int8_at_least(3, from),
        ];
        keys.extend(below.map(|below| Key::int8_below(3, below)));
        let limit = limit.less(&claimed.rows);
        let bytes = Cell::new(0);
        let are_enough = |rows: usize| rows >= limit.jobs as usize || bytes.get() >= limit.bytes;
        let take = |row: Row<'_>, tid| {
            let job = read(row, tid, priority, memory)?;
            bytes.set(bytes.get() + job.args_bytes);
            Ok(job)
        };
        let mut held = |row: Row<'_>| held(row.i64(live_job::ID), row.i64(live_job::POSITION));
        let asked = Asked {
            wants: None,
            held: Some(&mut held),
        };
        let index = "live_job_ready";
        let more = table.lock_in_order(index, &keys, snapshot, asked, are_enough, take)?;
        claimed.rows.extend(more.rows);
        claimed.passed_over |= more.passed_over;
        claimed.is_enough = more.is_enough;
        if claimed.is_enough {
            break;
        }
    }
    Ok(claimed)
}

/// The stretches of positions to look through, one after another. An index scan compares all entries that
/// match on a page before it answers the first: for a few jobs a near bound spares 9 % of a batch of one.
fn stretches(from: i64, most: u32) -> impl Iterator<Item = (i64, Option<i64>)> {
    const FEW: u32 = 8;
    const NEAR: i64 = 32;
    let near = (most <= FEW).then(|| from.saturating_add(NEAR));
    let first = near.map(|near| (from, Some(near)));
    first.into_iter().chain([(near.unwrap_or(from), None)])
}

fn read(row: Row<'_>, tid: Tid, priority: usize, memory: &Context) -> Result<Claimed> {
    Ok(Claimed {
        id: row.i64(live_job::ID),
        position: row.i64(live_job::POSITION),
        tid,
        run_at: row.timestamp(live_job::RUN_AT),
        enqueued_at: row.timestamp(live_job::ENQUEUED_AT),
        timeout_us: row.opt_i64(live_job::TIMEOUT_US),
        caused_by: row.opt_i64(live_job::CAUSED_BY),
        enqueued_by: row.oid(live_job::ENQUEUED_BY),
        attempt: row.i32(live_job::ATTEMPT),
        max_attempts: row.opt_i32(live_job::MAX_ATTEMPTS),
        priority: priority as i16,
        depth: i32::from(row.i16(live_job::DEPTH)),
        give_backs: row.i16(live_job::GIVE_BACKS),
        suspicions: row.i16(live_job::SUSPICIONS),
        unique_key: row.opt_text(live_job::UNIQUE_KEY)?,
        noted: row.opt_i32(live_job::SNOOZES).is_some(),
        args_bytes: row.length(live_job::ARGS),
        args: row
            .varlena_in(live_job::ARGS, memory.raw())
            .map_or(Answer::Null, Answer::Datum),
    })
}
