//! How far an unfinished job was, as its handler has said last: for its next attempt.

use std::cell::{Cell, RefCell};

use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::{current, log};
use crate::params;
use crate::pg::function::{Answer, Call};
use crate::pg::memory::Context;
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::{heap, identity, transaction, BuiltinOid};
use crate::sql_function;

/// Bytes of a checkpoint.
const MOST_BYTES: usize = 1 << 20;

static KEEP: Plan = Plan::new(
    "INSERT INTO pushy_internal.checkpoint (job_id, queue_id, state, enqueued_at) VALUES ($1, $2, $3, $4) \
     ON CONFLICT (job_id) DO UPDATE SET state = EXCLUDED.state",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::JSONBOID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

static STATE: Plan = Plan::new(
    "SELECT c.state FROM pushy_internal.checkpoint c WHERE c.job_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT8OID],
);

/// The last checkpoint of a job, in `memory`; as the extension's owner, as is the next.
pub fn of(job: i64, memory: &Context) -> Answer {
    spi::connect(|spi| {
        let found = spi.run(&STATE, params![job]);
        let state = found
            .first()
            .and_then(|row| row.varlena_in(1, memory.raw()));
        state.map_or(Answer::Null, Answer::Datum)
    })
}

/// The same, in the memory of the caller.
pub fn of_here(job: i64) -> Answer {
    spi::connect(|spi| {
        let found = spi.run(&STATE, params![job]);
        found
            .first()
            .map_or(Answer::Null, |row| row.answer_varlena(1))
    })
}

/// Jobs that are completed, or gone, begin nowhere.
pub fn remove(jobs: &[i64]) -> Result<()> {
    heap::delete_of_jobs("checkpoint", "checkpoint_pkey", jobs)
}

static IS_ANY: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));
/// The jobs whose handlers have kept one since `forget`, in this transaction if they are functions: their claims do not say so.
static KEPT: PerProcess<RefCell<Vec<i64>>> = PerProcess::new(RefCell::new(Vec::new()));

/// Whether a handler has kept one since `forget`.
#[inline]
pub fn is_any() -> bool {
    IS_ANY.get()
}

#[inline]
pub fn forget() {
    if IS_ANY.get() {
        IS_ANY.set(false);
        KEPT.take();
    }
}

/// Removes what functions have kept that have not put their jobs off: no attempt goes on from it. `ended`: all others of this
/// transaction. As the extension's owner.
#[cold]
pub fn remove_unless_put_off<'a>(ended: impl Iterator<Item = &'a Claimed>) -> Result<()> {
    let kept = KEPT.take();
    IS_ANY.set(false);
    // Of a job that had one before, that is there again if this attempt has failed; the job's completion has removed it else.
    let is_left = |job: &&Claimed| !job.noted && kept.contains(&job.id);
    let left: Vec<i64> = ended.filter(is_left).map(|job| job.id).collect();
    if left.is_empty() {
        return Ok(());
    }
    remove(&left)
}

sql_function!(pushy_job_checkpoint_v1, |call| checkpoint(call));

fn checkpoint(call: Call) -> Result<()> {
    let state = call.datum(0).ok_or_else(|| Error::null_argument("state"))?;
    let Some((job, enqueued_at, queue_id)) = current::job_and_queue() else {
        return Err(log::no_job("job_checkpoint"));
    };
    transaction::require_writable(c"pushy.job_checkpoint()");
    let bytes = call.length(0);
    if bytes > MOST_BYTES {
        return Err(Error::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            format!("a checkpoint of {bytes} bytes is too long"),
        )
        .hint(format!(
            "At most {MOST_BYTES} bytes are kept: write what is longer to a table of your own, in the same transaction."
        )));
    }
    identity::as_owner(|| {
        let kept = params![job, queue_id, Answer::Datum(state), enqueued_at];
        spi::run(&KEEP, kept);
        Ok(())
    })?;
    current::note();
    IS_ANY.set(true);
    KEPT.with_borrow_mut(|kept| {
        if kept.last() != Some(&job) {
            kept.push(job);
        }
    });
    Ok(())
}
