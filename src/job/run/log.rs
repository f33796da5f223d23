//! What handlers and workers outside say of their jobs: job_log. A handler's words are kept in memory until its attempt ends, because
//! those of an attempt that fails are wanted most, and written with its outcome.

use std::cell::{Cell, RefCell};

use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::current;
use crate::job::lease::leased_job::{self, LeasedJob};
use crate::job::moves::snooze;
use crate::job::tables::job_log as table;
use crate::params;
use crate::pg::function::Call;
use crate::pg::heap::{self, Key};
use crate::pg::per_process::PerProcess;
use crate::pg::spi::{self, Plan};
use crate::pg::value::{Timestamp, Uuid};
use crate::pg::{clock, identity, snapshot, text, transaction, BuiltinOid};
use crate::sql_function;

/// Lines kept of an attempt and of a job, and bytes of a line.
const MOST_OF_ATTEMPT: usize = 100;
const MOST_OF_JOB: i32 = 1_000;
const MOST_BYTES: usize = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl Level {
    const ALL: [Self; 4] = [Self::Debug, Self::Info, Self::Warning, Self::Error];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }

    fn parse(word: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == word);
        found.ok_or_else(|| {
            Error::out_of_range(
                "level",
                format!("\"{word}\""),
                "debug, info, warning or error",
            )
        })
    }
}

struct Line {
    job: i64,
    said_at: Timestamp,
    level: Level,
    message: Vec<u8>,
}

static IS_ANY: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));
static LINES: PerProcess<RefCell<Vec<Line>>> = PerProcess::new(RefCell::new(Vec::new()));

/// Whether a handler has said anything that is not written down yet.
#[inline]
pub fn is_any() -> bool {
    IS_ANY.get()
}

/// Whether one has of this job.
pub fn has_of(job: i64) -> bool {
    LINES.with_borrow(|lines| lines.iter().any(|line| line.job == job))
}

/// What was said of attempts that are made again, or not known any more, is not kept.
#[inline]
pub fn forget() {
    if IS_ANY.get() {
        forget_all();
    }
}

#[cold]
fn forget_all() {
    IS_ANY.set(false);
    LINES.take();
}

/// Says something of the job that runs in this process. Of an attempt the first lines are kept, and that there were more.
pub fn say(job: i64, level: Level, message: &[u8]) {
    LINES.with_borrow_mut(|lines| {
        let said = lines.iter().filter(|line| line.job == job).count();
        let (level, message) = match said {
            MOST_OF_ATTEMPT.. => return,
            _ if said + 1 == MOST_OF_ATTEMPT => (
                Level::Warning,
                &b"an attempt says 100 lines at most: what follows is not kept"[..],
            ),
            _ => (level, text::cut(message, MOST_BYTES)),
        };
        lines.push(Line {
            job,
            said_at: clock::now(),
            level,
            message: message.to_vec(),
        });
    });
    IS_ANY.set(true);
}

static APPEND: Plan = Plan::new(
    "INSERT INTO pushy_internal.job_log (job_id, line, attempt, queue_id, said_at, level, message, enqueued_at) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT4OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TEXTOID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// The number of the last line that is kept of a job.
fn last_line(job: i64) -> Result<Option<i32>> {
    let mut last = None;
    let (keys, now) = ([Key::int8_equals(1, job)], snapshot::take_latest());
    let lines = heap::open_for_reading("job_log")?;
    heap::check_columns(&lines, table::COLUMNS, &table::CHECKED)?;
    lines.read_in_order("job_log_pkey", &keys, &now, true, |row| {
        last = Some(row.i32(table::LINE));
        Ok(false)
    })?;
    Ok(last)
}

fn append(job: &Claimed, queue_id: i32, line: &Line) -> Result<()> {
    let number = last_line(job.id)?.unwrap_or(0) + 1;
    spi::run(
        &APPEND,
        params![
            job.id,
            number,
            job.attempt + 1,
            queue_id,
            line.said_at,
            line.level.as_str(),
            line.message.as_slice(),
            job.enqueued_at,
        ],
    );
    if number > MOST_OF_JOB {
        let first = [
            Key::int8_equals(1, job.id),
            Key::int4_below(2, number - MOST_OF_JOB + 1),
        ];
        heap::open("job_log")?.delete_of("job_log_pkey", &first)?;
    }
    Ok(())
}

/// Writes down what was said of these jobs, whose rows this transaction holds; the rest is forgotten. As the extension's owner.
#[cold]
pub fn write<'a>(queue_id: i32, jobs: impl Iterator<Item = &'a Claimed>) -> Result<()> {
    let lines = LINES.take();
    IS_ANY.set(false);
    for job in jobs {
        for line in lines.iter().filter(|line| line.job == job.id) {
            append(job, queue_id, line)?;
        }
    }
    Ok(())
}

/// Removes what is kept of jobs that are not; as the extension's owner.
pub fn remove(jobs: &[i64]) -> Result<()> {
    heap::delete_of_jobs("job_log", "job_log_pkey", jobs)
}

/// How a worker outside says the same of a job that it has claimed.
fn outside(function: &str) -> Option<&'static str> {
    match function {
        "job_log" => Some("passes job_id and token"),
        "job_progress" => Some("passes fraction and message to pushy.job_extend"),
        "job_retry_in" => Some("passes retry_in to pushy.job_fail"),
        "job_discard" => Some("passes discard to pushy.job_fail"),
        "job_snooze" => Some("tells pushy.jobs_settle the outcome snooze"),
        _ => None,
    }
}

#[cold]
pub fn no_job(function: &str) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{function} can only be called by a running job"),
    )
    .hint(match outside(function) {
        Some(way) => format!("Call it from a queue's handler; a worker outside {way}."),
        None => "Call it from a queue's handler.".into(),
    })
}

sql_function!(pushy_job_log_v1, |call| job_log(call));

/// False: the caller holds the job no longer.
fn job_log(call: Call) -> Result<bool> {
    let message = call.bytes("message", 0)?;
    let level = match call.opt_text(1)? {
        None => Level::Info,
        Some(word) => Level::parse(&word)?,
    };
    match (call.opt_i64(2), call.datum(3)) {
        (None, None) => {
            let Some(job) = current::id() else {
                return Err(no_job("job_log"));
            };
            say(job, level, &message);
            Ok(true)
        }
        (Some(job), Some(_)) => {
            transaction::require_writable(c"pushy.job_log()");
            let line = Line {
                job,
                said_at: clock::now(),
                level,
                message: text::cut(&message, MOST_BYTES).to_vec(),
            };
            of_claimed(&line, call.uuid("token", 3)?)
        }
        (Some(_), None) => Err(Error::null_argument("token")),
        (None, Some(_)) => Err(Error::null_argument("job_id")),
    }
}

fn of_claimed(line: &Line, token: Uuid) -> Result<bool> {
    let Some(leased) = leased_job::find(line.job, token)? else {
        return Ok(false);
    };
    identity::as_owner(|| keep(&leased, line))?;
    Ok(true)
}

/// Keeps a line of a claimed job; as the extension's owner, as is the next.
fn keep(leased: &LeasedJob, line: &Line) -> Result<()> {
    if !leased.job.noted {
        snooze::note(line.job)?;
    }
    append(&leased.job, leased.queue.queue_id, line)
}

/// Why a worker outside puts its job off.
pub fn put_off(leased: &LeasedJob, said_at: Timestamp, reason: &str) -> Result<()> {
    let line = Line {
        job: leased.job.id,
        said_at,
        level: Level::Info,
        message: text::cut(reason.as_bytes(), MOST_BYTES).to_vec(),
    };
    keep(leased, &line)
}
