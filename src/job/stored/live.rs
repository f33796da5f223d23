//! One unfinished job, found by its number.

use crate::pg::BuiltinOid;
use pushy_core::job_state::JobState;

use crate::errors::Result;
use crate::params;
use crate::pg::function::Answer;
use crate::pg::spi::{self, Plan, Row};
use crate::pg::{database, interrupts};

use crate::job::claimed::Claimed;
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, pending};

/// A job that is not finished, and the queue it belongs to.
pub struct Live {
    pub queue_id: i32,
    pub state: JobState,
    pub job: Claimed,
}

macro_rules! select {
    ($lock:literal) => {
        concat!(
            "SELECT j.id, j.position, j.ctid, j.run_at, j.enqueued_at, j.timeout_us, j.caused_by, j.enqueued_by, \
                    j.attempt, j.max_attempts, j.depth, j.give_backs, j.suspicions, j.unique_key, j.priority, j.queue_id, j.state \
               FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) $1",
            $lock
        )
    };
}

static UNLOCKED: Plan = Plan::new(select!(""), &[BuiltinOid::INT8OID]);
static LOCK_FREE: Plan = Plan::new(select!(" FOR UPDATE SKIP LOCKED"), &[BuiltinOid::INT8OID]);
static LOCK: Plan = Plan::new(select!(" FOR UPDATE"), &[BuiltinOid::INT8OID]);

fn read(row: Row<'_>) -> Result<Live> {
    Ok(Live {
        queue_id: row.i32(16),
        state: JobState::from_code(row.byte(17)).expect("constrained by the table"),
        job: Claimed {
            id: row.i64(1),
            position: row.opt_i64(2).unwrap_or(0),
            tid: row.tid(3),
            run_at: row.timestamp(4),
            enqueued_at: row.timestamp(5),
            timeout_us: row.opt_i64(6),
            caused_by: row.opt_i64(7),
            enqueued_by: row.oid(8),
            attempt: row.i32(9),
            max_attempts: row.opt_i32(10),
            depth: i32::from(row.i16(11)),
            give_backs: row.i16(12),
            suspicions: row.i16(13),
            unique_key: row.opt_text(14)?,
            priority: row.i16(15),
            args: Answer::Null,
            args_bytes: 0,
        },
    })
}

fn find(plan: &Plan, id: i64) -> Result<Option<Live>> {
    spi::connect(|spi| spi.run(plan, params![id]).first().map(read).transpose())
}

/// The job without a lock; as the extension's owner, as are the next two.
pub fn get(id: i64) -> Result<Option<Live>> {
    find(&UNLOCKED, id)
}

/// The job with its row locked, unless somebody else holds it.
pub fn lock_if_free(id: i64) -> Result<Option<Live>> {
    Ok(find(&LOCK_FREE, id)?.inspect(announce_at_end))
}

/// The job with its row locked, once nobody else holds it.
pub fn lock(id: i64) -> Result<Option<Live>> {
    Ok(find(&LOCK, id)?.inspect(announce_at_end))
}

static FIRST_READY: Plan = Plan::new(
    "SELECT j.position FROM pushy_internal.live_job j \
      WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.priority OPERATOR(pg_catalog.=) $2 \
        AND j.position OPERATOR(pg_catalog.>=) $3 ORDER BY j.position LIMIT 1",
    &[
        BuiltinOid::INT4OID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT8OID,
    ],
);

/// The position of the first ready job of a queue and priority that is not below `from`, held or not. As the
/// extension's owner.
pub fn first_ready(queue_id: i32, priority: usize, from: u64) -> Option<i64> {
    let from = from.min(i64::MAX as u64) as i64;
    spi::connect(|spi| {
        spi.run(&FIRST_READY, params![queue_id, priority as i16, from])
            .first()
            .map(|row| row.i64(1))
    })
}

/// Executors skip the row while this transaction locks it, and only this transaction can announce when it is free.
pub fn announce_at_end(live: &Live) {
    if live.state != JobState::Available {
        return;
    }
    let key = QueueKey {
        database: database::current(),
        queue_id: live.queue_id,
    };
    if let Some(slot) = shared::get().and_then(|shared| shared.find_queue(key)) {
        pending::locked(slot, key, live.job.priority as usize, live.job.position);
    }
}

/// A finished job, without its arguments and result.
pub struct Finished {
    pub queue_id: i32,
    pub state: JobState,
    pub priority: i16,
    pub unique_key: Option<String>,
}

/// Where a job is.
pub enum Whereabouts {
    Live(Live),
    Finished(Finished),
}

// In one statement, because its snapshot finds a job that moves between the tables in exactly one of them.
static FINISHED: Plan = Plan::new(
    "SELECT f.queue_id, f.priority, f.unique_key, f.state, \
            EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) $1) \
       FROM (SELECT $1) i(id) LEFT JOIN pushy_internal.finished_job f ON f.id OPERATOR(pg_catalog.=) i.id",
    &[BuiltinOid::INT8OID],
);

/// The job without a lock, finished or not; None where it is not kept any more, or never was. As the extension's owner.
pub fn find_anywhere(id: i64) -> Result<Option<Whereabouts>> {
    loop {
        interrupts::check();
        if let Some(live) = get(id)? {
            return Ok(Some(Whereabouts::Live(live)));
        }
        let (finished, is_live_again) = get_finished(id)?;
        if !is_live_again {
            return Ok(finished.map(Whereabouts::Finished));
        }
    }
}

/// The job if it is finished and still kept, and whether it is not finished.
fn get_finished(id: i64) -> Result<(Option<Finished>, bool)> {
    spi::connect(|spi| {
        let found = spi.run(&FINISHED, params![id]);
        let row = found.first().expect("one row, whatever is kept");
        let finished = match row.opt_i32(1) {
            None => None,
            Some(queue_id) => Some(Finished {
                queue_id,
                state: JobState::from_code(row.byte(4)).expect("constrained by the table"),
                priority: row.i16(2),
                unique_key: row.opt_text(3)?,
            }),
        };
        Ok((finished, row.bool(5)))
    })
}
