//! running → available, uncharged, at the old place: somebody else has cut the job short. After a crash from available, because
//! the claim is gone with its process.

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};

use super::rows::announce_ready;
use super::{as_claimed, step};
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::live;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::queue::definition::QueueDefinition;
use crate::shared::pending;
use crate::shared::statistics::QueueCounts;

static GIVE_BACK: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET give_backs = give_backs OPERATOR(pg_catalog.+) 1::pg_catalog.int2 \
      WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::TIDOID],
);

static SUSPECT: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET suspicions = suspicions OPERATOR(pg_catalog.+) 1::pg_catalog.int2 WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::TIDOID],
);

/// Times a job may be given back uncharged in a row; the next time is charged.
pub const MAX_GIVE_BACKS: i16 = 3;

/// A job that is given back and claimed again at once.
pub(super) fn count(job: i64) -> Result<()> {
    spi::run(&GIVE_BACK, params![live::place(job)?]);
    Ok(())
}

/// The job was cut short by somebody: it was one of `MAX_GIVE_BACKS` times.
pub fn give_back(
    queue: &QueueDefinition,
    slot: Option<usize>,
    from: JobState,
    job: &Claimed,
) -> Result<()> {
    give_back_by(&GIVE_BACK, queue, slot, from, job)
}

/// The server crashed while the job ran beside others: it runs with no other in the cluster the next time.
pub fn suspect(
    queue: &QueueDefinition,
    slot: Option<usize>,
    from: JobState,
    job: &Claimed,
) -> Result<()> {
    give_back_by(&SUSPECT, queue, slot, from, job)
}

fn give_back_by(
    plan: &'static Plan,
    queue: &QueueDefinition,
    slot: Option<usize>,
    from: JobState,
    job: &Claimed,
) -> Result<()> {
    step(job.id, as_claimed(job.id, from)?, JobEvent::Release)?;
    spi::run(plan, params![live::place(job.id)?]);
    if let Some(slot) = slot {
        let tally = QueueCounts {
            given_back: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &tally);
    }
    if matches!(from, JobState::Scheduled | JobState::Retryable) {
        // It becomes available once more.
        pending::waiting_from(job.run_at.0);
    } else {
        announce_ready(queue.key(), slot, job.priority, job.position);
    }
    Ok(())
}

const RELEASED: JobState = JobState::Running.after(JobEvent::Release);

/// Jobs that were claimed and not run are free again when the transaction ends: nothing is written, and their claim ends with it.
pub fn release(queue: &QueueDefinition, slot: usize, unrun: &[Claimed]) {
    debug_assert!(RELEASED == JobState::Available);
    for job in unrun {
        let priority = job.priority as usize;
        pending::ready(slot, queue.key(), priority, job.position, 0);
    }
}
