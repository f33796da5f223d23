//! A row per failed attempt.

use crate::pg::BuiltinOid;

use crate::errors::{Error, Result};
use crate::job::tables::failure as table;
use crate::params;
use crate::pg::heap::{self, Holder, Key};
use crate::pg::snapshot;
use crate::pg::spi::{self, Plan};
use crate::pg::text;
use crate::pg::value::Timestamp;

// An attempt is charged once: a second record of it (a verdict after a crash that raced with an
// ordinary failure) keeps the first.
static RECORD: Plan = Plan::new(
    "INSERT INTO pushy_internal.failure (job_id, attempt, queue_id, started_at, failed_at, sqlstate, message, detail, hint, context, enqueued_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (job_id, queue_id, attempt) DO NOTHING",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Bytes kept of each text of an error.
const MOST: usize = 8_000;

fn cut(text: &str) -> &str {
    text::cut_utf8(text, MOST)
}

/// Records why an attempt of a job, by its number and when it was enqueued, failed, or with attempt 0 why none was made; as the
/// extension's owner.
pub(super) fn record(
    (job, enqueued_at): (i64, Timestamp),
    attempt: i32,
    queue_id: i32,
    started_at: Option<Timestamp>,
    failed_at: Timestamp,
    error: &Error,
) -> Result<()> {
    spi::run(
        &RECORD,
        params![
            job,
            attempt,
            queue_id,
            started_at,
            failed_at,
            error.sqlstate.as_str(),
            cut(&error.message),
            error.detail.as_deref().map(cut),
            error.hint.as_deref().map(cut),
            error.context.as_deref().map(cut),
            enqueued_at,
        ],
    );
    Ok(())
}

/// The message of a job's last failure; as the extension's owner. By its queue too, as everywhere: a failure that was loaded may be of
/// another job of that number.
pub fn last_message(job: i64, queue_id: i32) -> Result<Option<String>> {
    let mut message = None;
    let now = snapshot::take_latest();
    let failures = heap::open_for_reading("failure")?;
    heap::check_columns(&failures, table::COLUMNS, &table::CHECKED)?;
    let keys = of_job(job, queue_id);
    failures.read_in_order("failure_pkey", &keys, &now, true, |row| {
        message = row.opt_text(table::MESSAGE)?;
        Ok(false)
    })?;
    Ok(message)
}

fn of_job(job: i64, queue_id: i32) -> [Key; 2] {
    [Key::int8_equals(1, job), Key::int4_equals(2, queue_id)]
}

/// Removes those of some jobs of a queue; as the extension's owner.
pub(super) fn remove(jobs: &[i64], queue_id: i32) -> Result<()> {
    let table = heap::open("failure")?;
    for job in jobs {
        table.delete_of("failure_pkey", &of_job(*job, queue_id))?;
    }
    Ok(())
}

/// Removes what a job was refused for before it made an attempt: jobs that never failed have no failures (history.rs).
pub(super) fn forget_refusal(job: i64, queue_id: i32) -> Result<()> {
    let table = heap::open("failure")?;
    let keys = [
        Key::int8_equals(1, job),
        Key::int4_equals(2, queue_id),
        Key::int4_equals(3, 0),
    ];
    let what = || format!("the failure of job {job}");
    let holder = Holder::WaitedFor(&what);
    let refusal = table.lock_now("failure_pkey", &keys, holder, |_, tid| Ok(tid))?;
    if let Some(refusal) = refusal {
        table.delete(std::iter::once(refusal));
        heap::advance_command();
    }
    Ok(())
}
