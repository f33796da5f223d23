//! What the moves have in common: how a state stands in a row, and how an unfinished job comes among the finished ones.

use crate::pg::BuiltinOid;
use pushy_core::job_state::JobState;

use crate::errors::Result;
use crate::job::{history, live};
use crate::pg::function::Answer;
use crate::pg::heap::{self, Key, Unique};
use crate::pg::spi::{self, Plan};
use crate::pg::text;
use crate::pg::value::{Char, Timestamp};
use crate::queue::definition::QueueDefinition;
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, pending};
use crate::{kept_columns, params};

/// The state of an unfinished job and its position, of which the table wants that they agree: a ready job has a position, one
/// that waits has none.
pub(super) struct Stored {
    pub(super) state: Char,
    pub(super) position: Option<i64>,
}

impl Stored {
    /// `position`: where the job stands if it is ready.
    #[inline]
    pub(super) fn of(state: JobState, position: i64) -> Self {
        debug_assert!(!state.is_terminal() && state != JobState::Running);
        Self {
            state: Char(state.code()),
            position: (state == JobState::Available).then_some(position),
        }
    }
}

/// Says at commit that a job became ready. Where its queue has no place in shared memory, who gives it one looks; without the
/// preload nobody runs it.
pub(super) fn announce_ready(key: QueueKey, slot: Option<usize>, priority: i16, position: i64) {
    match slot {
        Some(slot) => pending::ready(slot, key, priority as usize, position, 0),
        None if shared::get().is_some() => pending::unplaced(key),
        None => {}
    }
}

// By its place, because an index would be remembered of a SERIALIZABLE transaction: a page with the jobs of others.
static MOVE_TO_FINISHED: Plan = Plan::new(
    concat!(
        "WITH gone AS (DELETE FROM pushy_internal.live_job j WHERE j.ctid OPERATOR(pg_catalog.=) $1 RETURNING j.*) \
         INSERT INTO pushy_internal.finished_job (expires_at, started_at, finished_at, attempt, state, run_at, max_attempts, ",
        kept_columns!(),
        ") SELECT $2, $3, $4, $5, $6, run_at, max_attempts, ",
        kept_columns!(),
        " FROM gone ON CONFLICT DO NOTHING"
    ),
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT4OID,
        BuiltinOid::CHAROID,
    ],
);

/// Moves an unfinished job, whose row this transaction holds, among the finished ones. Where one of its number is among them already,
/// which only rows written by others than Pushy can bring about, that one stays.
pub(super) fn end_as(
    queue: &QueueDefinition,
    job: i64,
    state: JobState,
    attempt: i32,
    started_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<()> {
    debug_assert!(state.is_terminal());
    let Some(held) = live::get(job)? else {
        return Ok(());
    };
    let expires_at = now.plus_us(queue.keep_discarded_us);
    spi::run(
        &MOVE_TO_FINISHED,
        params![
            held.job.tid,
            expires_at,
            started_at,
            now,
            attempt,
            Char(state.code())
        ],
    );
    pending::due(history::removal_due(expires_at));
    Ok(())
}

/// Inserts a job of the key `beside` another; false where one has come there, after whoever inserts one. As the extension's owner.
pub(super) fn insert_of_key(
    row: &[Answer],
    queue: &QueueDefinition,
    unique_key: &str,
    beside: i64,
) -> Result<bool> {
    let keys = [
        Key::int4_equals(1, queue.queue_id),
        Key::text_equals(2, unique_key),
        Key::int8_equals(3, beside),
    ];
    let unique = Unique {
        index: "live_job_unique",
        keys: &keys,
        what: &|| {
            let key = text::shown(unique_key.as_bytes());
            format!("unique key \"{key}\" of queue \"{}\"", queue.name)
        },
    };
    heap::open("live_job")?.insert_unless_there(row, Some(&unique))
}
