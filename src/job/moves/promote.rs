//! scheduled, retryable → available: jobs whose time has come.

use std::cell::RefCell;

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};

use super::rows::announce_ready;
use crate::errors::Result;
use crate::job::position;
use crate::job::tables::live_job;
use crate::params;
use crate::pg::heap::{self, Asked, Key, Table};
use crate::pg::snapshot;
use crate::pg::spi::{self, Plan};
use crate::pg::value::{Char, Timestamp};
use crate::pg::{array, clock, database};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::queue_slot::QueueKey;
use pushy_core::turns::{Bounds, Turns, WaitingCursor};

/// Of what the index of waiting jobs holds: both states in which a job waits.
const PROMOTED: JobState = JobState::Scheduled.after(JobEvent::Due);
const _: () = assert!(matches!(JobState::Retryable.after(JobEvent::Due), PROMOTED));

/// A job that is due.
struct Due {
    id: i64,
    queue_id: i32,
    priority: i16,
}

macro_rules! due_of_queue {
    () => {
        "SELECT j.id, j.queue_id, j.priority FROM pushy_internal.live_job j \
          WHERE j.position IS NULL AND j.leased IS NULL \
            AND j.run_at OPERATOR(pg_catalog.<=) $1 AND j.queue_id OPERATOR(pg_catalog.=) $3 \
          ORDER BY j.run_at, j.id LIMIT $2"
    };
}

const DUE_PARAMETERS: &[BuiltinOid] = &[
    BuiltinOid::TIMESTAMPTZOID,
    BuiltinOid::INT8OID,
    BuiltinOid::INT4OID,
];

// Waits for the scheduler, which may be making the same jobs ready.
static DUE_OF_QUEUE: Plan = Plan::new(concat!(due_of_queue!(), " FOR UPDATE"), DUE_PARAMETERS);

// Waits for nobody, as workers may not.
static UNHELD_OF_QUEUE: Plan = Plan::new(
    concat!(due_of_queue!(), " FOR UPDATE SKIP LOCKED"),
    DUE_PARAMETERS,
);

static PROMOTE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job j SET state = $3, position = d.position \
       FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS d (id, position) \
      WHERE j.id OPERATOR(pg_catalog.=) d.id",
    &[
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::CHAROID,
    ],
);

/// Turns at what waits for this time (µs) or a later one.
pub fn turns_from(from: i64) -> Turns {
    Turns::from(from, Bounds::USUAL)
}

/// Makes due jobs ready that these turns have come to, a thousand at most: false when there are no more. Those that somebody
/// holds stay as they are. As the extension's owner.
pub fn promote(queues: &[QueueDefinition], turns: &mut Turns) -> Result<bool> {
    let due = lock_due(queues, turns)?;
    make_ready(queues, &due)?;
    Ok(!turns.are_over())
}

/// Makes jobs of one queue ready, from its first job on, that are due `until` then; waits for jobs that somebody holds; true when there may be more.
pub fn promote_of(queue: &QueueDefinition, until: Timestamp, most: usize) -> Result<bool> {
    promote_found(&DUE_OF_QUEUE, queue, until, most)
}

/// The same, but jobs that somebody holds stay as they are.
pub fn promote_unheld_of(queue: &QueueDefinition, until: Timestamp, most: usize) -> Result<bool> {
    promote_found(&UNHELD_OF_QUEUE, queue, until, most)
}

fn promote_found(
    due_of_queue: &'static Plan,
    queue: &QueueDefinition,
    until: Timestamp,
    most: usize,
) -> Result<bool> {
    let due: Vec<Due> = spi::connect(|spi| {
        let due = spi.run(due_of_queue, params![until, most as i64, queue.queue_id]);
        let read = |row: spi::Row<'_>| Due {
            id: row.i64(1),
            queue_id: row.i32(2),
            priority: row.i16(3),
        };
        due.rows().map(read).collect()
    });
    make_ready(std::slice::from_ref(queue), &due)?;
    Ok(due.len() == most)
}

/// Reads the index live_job_due behind a place: from its beginning each look walked over the entries of all jobs
/// that have waited since the last vacuum, and behind an old snapshot the rate fell from 53,000 to 16,000 jobs/s
/// with the first 800,000.
fn lock_due(queues: &[QueueDefinition], turns: &mut Turns) -> Result<Vec<Due>> {
    let table = open()?;
    let snapshot = snapshot::take();
    let now = clock::now();
    let after = turns.begin();
    let from = Timestamp(after.run_at);
    let mut due = Vec::new();
    let owner_of = |queue_id: i32| {
        let found = queues.iter().find(|queue| queue.queue_id == queue_id);
        found.map_or(0, |queue| queue.owner.to_u32())
    };
    let walk = RefCell::new(turns);
    let mut wants = |row: spi::Row<'_>| {
        let place = WaitingCursor {
            run_at: row.timestamp(live_job::RUN_AT).0,
            id: row.i64(live_job::ID),
        };
        walk.borrow_mut()
            .wants(place, row.i32(live_job::QUEUE_ID), owner_of)
    };
    let mut is_enough = false;
    // Others that wait for the very same time, then those that wait for a later one.
    for keys in [
        [
            Key::timestamp_equals(RUN_AT, from),
            Key::int8_above(ID, after.id),
        ],
        [
            Key::timestamp_above(RUN_AT, from),
            Key::timestamp_at_most(RUN_AT, now),
        ],
    ] {
        if is_enough || from > now {
            break;
        }
        let take = |row: spi::Row<'_>, _| {
            Ok(Due {
                id: row.i64(live_job::ID),
                queue_id: row.i32(live_job::QUEUE_ID),
                priority: row.i16(live_job::PRIORITY),
            })
        };
        let are_enough = |_| walk.borrow().has_walked_enough();
        let more = table.lock_in_order(
            INDEX,
            &keys,
            &snapshot,
            Asked {
                wants: Some(&mut wants),
                held: None,
            },
            are_enough,
            take,
        )?;
        is_enough = more.is_enough;
        due.extend(more.rows);
    }
    walk.into_inner().end(is_enough);
    Ok(due)
}

/// The time for which the first job waits, `from` or later. As the extension's owner.
pub fn first_waiting(from: Timestamp) -> Result<Option<Timestamp>> {
    let table = open()?;
    let mut first = None;
    let keys = [Key::timestamp_at_least(RUN_AT, from)];
    table.read_in_order(INDEX, &keys, &snapshot::take(), false, |row| {
        first = Some(row.timestamp(live_job::RUN_AT));
        Ok(false)
    })?;
    Ok(first)
}

/// Jobs that wait, and its columns, from 1.
const INDEX: &str = "live_job_due";
const RUN_AT: i16 = 1;
const ID: i16 = 2;

fn open() -> Result<Table> {
    let table = heap::open("live_job")?;
    heap::check_columns(&table, live_job::COLUMNS, &live_job::CHECKED)?;
    Ok(table)
}

fn make_ready(queues: &[QueueDefinition], due: &[Due]) -> Result<()> {
    if due.is_empty() {
        return Ok(());
    }
    let ids: Vec<i64> = due.iter().map(|job| job.id).collect();
    let positions: Vec<i64> = position::next_of(due.len())?.collect();
    spi::run(
        &PROMOTE,
        params![
            array::of_int8s(&ids),
            array::of_int8s(&positions),
            Char(PROMOTED.code())
        ],
    );
    for (job, position) in due.iter().zip(&positions) {
        let found = queues.iter().find(|queue| queue.queue_id == job.queue_id);
        let slot = match found {
            Some(queue) => cache::slot_of(queue),
            None => slot_of_new(job.queue_id)?,
        };
        let key = QueueKey {
            database: database::current(),
            queue_id: job.queue_id,
        };
        announce_ready(key, slot, job.priority, *position);
    }
    Ok(())
}

/// The slot of a queue that was registered after the scheduler had read the others. Its jobs may be due by now, and only the
/// process that makes them ready announces them. None also where the queue is gone, and its jobs are orphans.
#[cold]
fn slot_of_new(queue_id: i32) -> Result<Option<usize>> {
    match definition::find_by_id(queue_id)? {
        Some(queue) => Ok(cache::slot_of(&queue)),
        None => Ok(None),
    }
}
