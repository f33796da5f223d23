//! scheduled, retryable, completed, discarded, cancelled → available: somebody wants the job to run now.

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};

use super::rows::{announce_ready, Stored};
use super::step;
use crate::errors::Result;
use crate::job::live::{Finished, Live};
use crate::job::position;
use crate::job::promise;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, database};
use crate::queue::cache;
use crate::queue::definition::QueueDefinition;
use crate::shared::statistics::QueueCounts;
use crate::shared::{self, pending};
use crate::{kept_columns, params};

static MAKE_READY: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET state = $2, position = $3, run_at = $4, give_backs = 0, suspicions = 0 \
      WHERE id OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

// The attempts made stay counted; one more is allowed where they were used up. A refusal for its depth, which is no
// attempt, is forgotten: jobs that never failed have no failures (history.rs).
static RUN_AGAIN: Plan = Plan::new(
    concat!(
        "WITH again AS (DELETE FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) $1 RETURNING f.*), \
         refusal AS (DELETE FROM pushy_internal.failure x WHERE x.job_id OPERATOR(pg_catalog.=) $1 AND x.attempt OPERATOR(pg_catalog.=) 0) \
         INSERT INTO pushy_internal.live_job (beside, position, run_at, state, attempt, max_attempts, ",
        kept_columns!(),
        ") SELECT $6, $2, $3, $4, attempt, \
                  CASE WHEN COALESCE(max_attempts, $5) OPERATOR(pg_catalog.>) attempt THEN max_attempts \
                       ELSE attempt OPERATOR(pg_catalog.+) 1 END, ",
        kept_columns!(),
        " FROM again ON CONFLICT (queue_id, unique_key, beside) WHERE unique_key IS NOT NULL DO NOTHING"
    ),
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT8OID,
    ],
);

/// Makes a job that waits ready. Its row is held by this transaction; as the extension's owner.
pub fn run_now(queue: &QueueDefinition, waiting: &Live) -> Result<()> {
    let id = waiting.job.id;
    let stored = ready(id, waiting.state)?;
    spi::run(
        &MAKE_READY,
        params![id, stored.state, stored.position, clock::now()],
    );
    announce(queue, waiting.job.priority, &stored);
    Ok(())
}

/// Makes a finished job run again, `beside` the newest one of its key; counted by the commit. False when it is gone from the
/// history, or another of its key came beside that job. As the extension's owner.
pub fn run_again(
    queue: &QueueDefinition,
    id: i64,
    finished: &Finished,
    beside: Option<i64>,
) -> Result<bool> {
    let stored = ready(id, finished.state)?;
    let (now, most) = (clock::now(), queue.max_attempts);
    let moved = spi::run(
        &RUN_AGAIN,
        params![id, stored.position, now, stored.state, most, beside],
    );
    if moved == 0 {
        return Ok(false);
    }
    // It is cancelled, whatever becomes of this transaction; before the row can be seen, which others would cancel again.
    promise::forget(id);
    if let Some(shared) = shared::get() {
        shared.cancels.forget_job(database::current(), id);
    }
    announce(queue, finished.priority, &stored);
    if let Some(slot) = cache::slot_of(queue) {
        let again = QueueCounts {
            run_again: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &again);
    }
    Ok(true)
}

fn ready(id: i64, from: JobState) -> Result<Stored> {
    let state = step(id, from, JobEvent::RetryNow)?;
    Ok(Stored::of(state, position::next()?))
}

fn announce(queue: &QueueDefinition, priority: i16, stored: &Stored) {
    let position = stored.position.expect("a ready job has one");
    announce_ready(queue.key(), cache::slot_of(queue), priority, position);
}
