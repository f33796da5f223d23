//! Jobs whose time has come.

use crate::pg::BuiltinOid;
use pushy_core::state::JobState;

use super::position;
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Char;
use crate::pg::{array, clock};
use crate::queue::cache;
use crate::queue::definition::Definition;
use crate::shared::pending;

static DUE: Plan = Plan::new(
    "SELECT j.id, j.queue_id, j.priority FROM pushy.live_job j \
      WHERE j.position IS NULL AND j.run_at OPERATOR(pg_catalog.<=) $1 \
      ORDER BY j.run_at LIMIT $2 FOR UPDATE SKIP LOCKED",
    &[BuiltinOid::TIMESTAMPTZOID, BuiltinOid::INT8OID],
);

// Waits for the scheduler, which may be making the same jobs ready.
static DUE_OF_QUEUE: Plan = Plan::new(
    "SELECT j.id, j.queue_id, j.priority FROM pushy.live_job j \
      WHERE j.position IS NULL AND j.run_at OPERATOR(pg_catalog.<=) $1 \
        AND j.queue_id OPERATOR(pg_catalog.=) $3 \
      ORDER BY j.run_at LIMIT $2 FOR UPDATE",
    &[
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
    ],
);

static PROMOTE: Plan = Plan::new(
    "UPDATE pushy.live_job j SET state = $3, position = d.position \
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS d (id, position) \
      WHERE j.id OPERATOR(pg_catalog.=) d.id",
    &[
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::CHAROID,
    ],
);

/// Makes up to `most` due jobs ready, in the order of their times: those of queue `only`, or of all. True
/// when there may be more. As the extension's owner.
pub fn promote(queues: &[Definition], only: Option<i32>, most: i64) -> Result<bool> {
    let due: Vec<(i64, i32, i16)> = spi::connect(|spi| {
        let now = clock::now();
        let due = match only {
            Some(queue_id) => spi.run(&DUE_OF_QUEUE, params![now, most, queue_id]),
            None => spi.run(&DUE, params![now, most]),
        };
        due.rows()
            .map(|row| (row.i64(1), row.i32(2), row.i16(3)))
            .collect()
    });
    if due.is_empty() {
        return Ok(false);
    }
    let ids: Vec<i64> = due.iter().map(|job| job.0).collect();
    let positions = due
        .iter()
        .map(|_| position::next())
        .collect::<Result<Vec<i64>>>()?;
    let available = Char(JobState::Available.code());
    spi::run(
        &PROMOTE,
        params![
            array::of_int8s(&ids),
            array::of_int8s(&positions),
            available
        ],
    );
    for ((_, queue_id, priority), position) in due.iter().zip(&positions) {
        let Some(queue) = queues.iter().find(|queue| queue.queue_id == *queue_id) else {
            continue;
        };
        if let Some(slot) = cache::slot_of(queue)? {
            pending::ready(slot, queue.key(), *priority as usize, *position, 0);
        }
    }
    Ok(due.len() as i64 == most)
}
