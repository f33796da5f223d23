//! One unfinished job, found by its number.

use std::sync::atomic::AtomicU64;

use pushy_core::job_state::JobState;

use crate::errors::Result;
use crate::params;
use crate::pg::function::Answer;
use crate::pg::heap::{self, Holder, Key};
use crate::pg::memory::Context;
use crate::pg::spi::{self, Plan, Row, Tid};
use crate::pg::{database, interrupts, snapshot, BuiltinOid};

use crate::job::claimed::Claimed;
use crate::job::history;
use crate::job::tables::{finished_job, live_job};
use crate::shared::queue_slot::QueueKey;
use crate::shared::{self, pending};

/// A job that is not finished, and the queue it belongs to.
pub struct Live {
    pub queue_id: i32,
    pub state: JobState,
    pub job: Claimed,
}

const SHAPE: (&[&str], &AtomicU64) = (live_job::COLUMNS, &live_job::CHECKED);
const BY_ID: &str = "live_job_pkey";

fn read(row: Row<'_>, tid: Tid) -> Result<Live> {
    use live_job::{
        ATTEMPT, CAUSED_BY, DEPTH, ENQUEUED_AT, ENQUEUED_BY, GIVE_BACKS, ID, MAX_ATTEMPTS,
        POSITION, PRIORITY, QUEUE_ID, RUN_AT, SNOOZES, STATE, SUSPICIONS, TIMEOUT_US, UNIQUE_KEY,
    };
    Ok(Live {
        queue_id: row.i32(QUEUE_ID),
        state: JobState::from_code(row.byte(STATE)).expect("constrained by the table"),
        job: Claimed {
            id: row.i64(ID),
            position: row.opt_i64(POSITION).unwrap_or(0),
            tid,
            run_at: row.timestamp(RUN_AT),
            enqueued_at: row.timestamp(ENQUEUED_AT),
            timeout_us: row.opt_i64(TIMEOUT_US),
            caused_by: row.opt_i64(CAUSED_BY),
            enqueued_by: row.oid(ENQUEUED_BY),
            attempt: row.i32(ATTEMPT),
            max_attempts: row.opt_i32(MAX_ATTEMPTS),
            depth: i32::from(row.i16(DEPTH)),
            give_backs: row.i16(GIVE_BACKS),
            suspicions: row.i16(SUSPICIONS),
            unique_key: row.opt_text(UNIQUE_KEY)?,
            noted: row.opt_i32(SNOOZES).is_some(),
            priority: row.i16(PRIORITY),
            args: Answer::Null,
            args_bytes: 0,
        },
    })
}

/// The same with the arguments, in `memory`.
pub fn read_with_args(row: Row<'_>, tid: Tid, memory: &Context) -> Result<Live> {
    let args = row.varlena_in(live_job::ARGS, memory.raw());
    let args_bytes = row.length(live_job::ARGS);
    let mut live = read(row, tid)?;
    live.job.args = args.map_or(Answer::Null, Answer::Datum);
    live.job.args_bytes = args_bytes;
    Ok(live)
}

/// The job without a lock; as the extension's owner, as are the next two.
pub fn get(id: i64) -> Result<Option<Live>> {
    let mut found = None;
    heap::read_to_change(
        "live_job",
        SHAPE,
        BY_ID,
        &[Key::int8_equals(1, id)],
        |row, tid| {
            found = Some(read(row, tid)?);
            Ok(false)
        },
    )?;
    Ok(found)
}

fn lock_row(id: i64, holder: Holder<'_>) -> Result<Option<Live>> {
    let keys = [Key::int8_equals(1, id)];
    let locked = heap::lock_now("live_job", SHAPE, BY_ID, &keys, holder, read)?;
    Ok(locked.inspect(announce_at_end))
}

/// The job with its row locked, unless somebody else holds it.
pub fn lock_if_free(id: i64) -> Result<Option<Live>> {
    lock_row(id, Holder::LetBe)
}

/// The job with its row locked, once nobody else holds it.
pub fn lock(id: i64) -> Result<Option<Live>> {
    lock_row(id, Holder::WaitedFor(&|| format!("job {id}")))
}

/// The position of the first ready job of a queue and priority that is not below `from`, held or not. As the
/// extension's owner.
pub fn first_ready(queue_id: i32, priority: usize, from: u64) -> Result<Option<i64>> {
    let keys = [
        Key::int4_equals(1, queue_id),
        Key::int2_equals(2, priority as i16),
        Key::int8_at_least(3, from.min(i64::MAX as u64) as i64),
    ];
    let mut first = None;
    heap::read_now("live_job", SHAPE, "live_job_ready", &keys, |row| {
        first = row.opt_i64(live_job::POSITION);
        Ok(false)
    })?;
    Ok(first)
}

/// What a look for the first ready job has come to.
pub enum FirstReady {
    At(i64),
    None,
    /// As many rows were met as it may meet, done ones too: the look goes on from this position.
    Not(i64),
}

/// The same, after as many rows at most, counted down, of which those that were done since the last vacuum may be millions.
pub fn first_ready_of_some(
    queue_id: i32,
    priority: usize,
    from: i64,
    left: &mut usize,
) -> Result<FirstReady> {
    let keys = [
        Key::int4_equals(1, queue_id),
        Key::int2_equals(2, priority as i16),
        Key::int8_at_least(3, from),
    ];
    let mut found = FirstReady::None;
    let (columns, checked) = SHAPE;
    let table = heap::open_for_reading("live_job")?;
    heap::check_columns(&table, columns, checked)?;
    let now = snapshot::take_latest();
    table.read_versions("live_job_ready", &keys, &now, |row, is_seen| {
        let position = row.opt_i64(live_job::POSITION).unwrap_or(from);
        *left = left.saturating_sub(1);
        if is_seen {
            found = FirstReady::At(position);
        } else if *left == 0 {
            found = FirstReady::Not(position);
        }
        Ok(!is_seen && *left > 0)
    })?;
    Ok(found)
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

/// The same at once, of a job that this transaction has not locked.
pub fn announce(live: &Live) {
    if live.state != JobState::Available {
        return;
    }
    let key = QueueKey {
        database: database::current(),
        queue_id: live.queue_id,
    };
    let Some(shared) = shared::get() else { return };
    if let Some(slot) = shared.find_queue(key) {
        let priority = live.job.priority as usize;
        shared.announce(slot, key, priority, live.job.position as u64);
        shared.wake_for(slot);
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

static WHEN_SEEN: Plan = Plan::new(
    "SELECT l.queue_id FROM pushy_internal.live_job l WHERE l.id OPERATOR(pg_catalog.=) $1 \
     UNION ALL SELECT f.queue_id FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) $1 LIMIT 1",
    &[BuiltinOid::INT8OID],
);

/// The queue of a job that the running statement's snapshot shows, though it may be gone by now; as the extension's owner.
pub fn queue_when_seen(id: i64) -> Option<i32> {
    spi::connect(|spi| {
        let found = spi.run_in_active_snapshot(&WHEN_SEEN, params![id]);
        found.first().map(|row| row.i32(1))
    })
}

/// The job if it is finished and still kept, and whether it is not finished: both under one snapshot, which finds a job that
/// moves between the tables in exactly one of them.
fn get_finished(id: i64) -> Result<(Option<Finished>, bool)> {
    let now = snapshot::take_latest();
    let mut finished = None;
    history::find(id, &now, |row| {
        use finished_job::{PRIORITY, QUEUE_ID, STATE, UNIQUE_KEY};
        finished = Some(Finished {
            queue_id: row.i32(QUEUE_ID),
            state: JobState::from_code(row.byte(STATE)).expect("constrained by the table"),
            priority: row.i16(PRIORITY),
            unique_key: row.opt_text(UNIQUE_KEY)?,
        });
        Ok(())
    })?;
    let mut is_live = false;
    let table = heap::open_for_reading("live_job")?;
    table.read_in_order(BY_ID, &[Key::int8_equals(1, id)], &now, false, |_| {
        is_live = true;
        Ok(false)
    })?;
    Ok((finished, is_live))
}

/// The arguments of a job whose row this transaction has locked, in `memory`, and of how many bytes they are; as the extension's owner.
pub fn args(id: i64, memory: &Context) -> Result<(Answer, usize)> {
    read_args(id, |row| {
        let args = row.varlena_in(live_job::ARGS, memory.raw());
        let args = args.map_or(Answer::Null, Answer::Datum);
        (args, row.length(live_job::ARGS))
    })
}

/// The same, in the memory of the caller.
pub fn args_here(id: i64) -> Result<Answer> {
    Ok(read_args(id, |row| (row.answer_copied(live_job::ARGS), 0))?.0)
}

fn read_args(id: i64, copy: impl Fn(&Row<'_>) -> (Answer, usize)) -> Result<(Answer, usize)> {
    let mut args = (Answer::Null, 0);
    let keys = [Key::int8_equals(1, id)];
    heap::read_now("live_job", SHAPE, BY_ID, &keys, |row| {
        args = copy(&row);
        Ok(false)
    })?;
    Ok(args)
}

/// Where the row is by now of a job that this transaction has locked: for statements that find it by its place, because an index
/// would be remembered of a SERIALIZABLE transaction. As the extension's owner.
pub fn place(id: i64) -> Result<Option<Tid>> {
    Ok(get(id)?.map(|live| live.job.tid))
}
