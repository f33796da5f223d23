//! Adding jobs, in the caller's transaction.

use std::rc::Rc;

use pgrx::pg_sys::{BuiltinOid, Oid};
use pushy_core::state::JobState;

use super::cache::{self, Known};
use super::privilege::{self, Privilege};
use super::{current, position};
use crate::errors::{Error, Result, SqlState};
use crate::pg::function::{Answer, Call, Char, Timestamp};
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, identity};
use crate::shared::pending;
use crate::{params, settings, sql_function};

/// What all jobs of one call have in common.
struct Request {
    queue: Rc<Known>,
    /// Who called: inside the guard the current user is the extension's owner.
    caller: Oid,
    enqueued_at: Timestamp,
    run_at: Timestamp,
    /// Due now.
    ready: bool,
    priority: i16,
    max_attempts: Option<i32>,
    timeout_us: Option<i64>,
    caused_by: Option<i64>,
    depth: i32,
}

/// The places of the optional arguments that enqueue and enqueue_many share.
struct Places {
    run_at: usize,
    delay: usize,
    priority: usize,
    max_attempts: usize,
    timeout: usize,
}

fn read_request(call: Call, queue: &str, places: &Places) -> Result<Request> {
    let queue = cache::get(queue)?;
    let caller = identity::current_user();
    let (definition, grants) = (&queue.definition, &queue.grants);
    privilege::require(definition, grants, caller, Privilege::Enqueue)?;
    let now = clock::now();
    let run_at = read_due_time(call, places, now)?;
    let ready = run_at.is_none_or(|due| due <= now);
    let priority = call
        .opt_i32(places.priority)
        .unwrap_or(queue.definition.priority);
    if !(0..=9).contains(&priority) {
        return Err(Error::out_of_range(
            "priority",
            priority,
            "0 (first) to 9 (last)",
        ));
    }
    let max_attempts = call.opt_i32(places.max_attempts);
    if let Some(attempts) = max_attempts.filter(|attempts| *attempts < 1) {
        return Err(Error::out_of_range("max_attempts", attempts, "1 or more"));
    }
    let timeout_us = call.opt_interval_us("timeout", places.timeout)?;
    if timeout_us.is_some_and(|us| us < 0) {
        return Err(Error::out_of_range(
            "timeout",
            "a negative interval",
            "a positive interval, or 0 for none",
        ));
    }
    let (caused_by, depth) = match current::cause() {
        Some((cause, depth)) => (Some(cause), depth + 1),
        None => (None, 0),
    };
    Ok(Request {
        queue,
        caller,
        enqueued_at: now,
        run_at: run_at.filter(|due| *due > now).unwrap_or(now),
        ready,
        priority: priority as i16,
        max_attempts,
        timeout_us,
        caused_by,
        depth,
    })
}

fn read_due_time(call: Call, places: &Places, now: Timestamp) -> Result<Option<Timestamp>> {
    let run_at = call.opt_timestamp(places.run_at);
    let delay = call.opt_interval_us("delay", places.delay)?;
    match (run_at, delay) {
        (Some(_), Some(_)) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "run_at and delay are both given",
        )
        .hint("Pass run_at for a point in time, or delay for a time from now.")),
        (Some(due), None) if !due.is_finite() => Err(Error::out_of_range(
            "run_at",
            if due == Timestamp::INFINITY {
                "infinity"
            } else {
                "-infinity"
            },
            "a finite time; leave it out to run the job now",
        )),
        (due, None) => Ok(due),
        (None, Some(delay)) if delay < 0 => Err(Error::out_of_range(
            "delay",
            "a negative interval",
            "a positive interval; leave it out to run the job now",
        )),
        (None, Some(delay)) => Ok(Some(now.plus_us(delay))),
    }
}

// With the slot and the privileges cached this is the whole cost of an enqueue: one sequence value and
// one INSERT with a kept plan.
macro_rules! insert {
    ($source:literal) => {
        concat!(
            "INSERT INTO pushy.live_job (id, position, run_at, enqueued_at, timeout_us, caused_by, \
             queue_id, enqueued_by, max_attempts, priority, depth, state, unique_key, args) ",
            $source
        )
    };
}

static INSERT: Plan = Plan::new(
    insert!("VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL, $13)"),
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT2OID,
        BuiltinOid::CHAROID,
        BuiltinOid::JSONBOID,
    ],
);

static INSERT_UNIQUE: Plan = Plan::new(
    insert!(
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $14, $13) \
         ON CONFLICT (queue_id, unique_key) WHERE unique_key IS NOT NULL DO NOTHING"
    ),
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT2OID,
        BuiltinOid::CHAROID,
        BuiltinOid::JSONBOID,
        BuiltinOid::TEXTOID,
    ],
);

static FIND_UNIQUE: Plan = Plan::new(
    "SELECT j.id FROM pushy.live_job j \
      WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.unique_key OPERATOR(pg_catalog.=) $2",
    &[BuiltinOid::INT4OID, BuiltinOid::TEXTOID],
);

// $1 numbers and $13 arguments are parallel arrays; $2 says whether the jobs are due.
static INSERT_MANY: Plan = Plan::new(
    insert!(
        "SELECT u.id, CASE WHEN $2 THEN u.id END, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, NULL, u.args \
           FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($13)) AS u (id, args)"
    ),
    &[
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::BOOLOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT2OID,
        BuiltinOid::CHAROID,
        BuiltinOid::JSONBARRAYOID,
    ],
);

// A chain of causes longer than pushy.max_depth: the job is born discarded.
static INSERT_TOO_DEEP: Plan = Plan::new(
    "INSERT INTO pushy.finished_job (id, expires_at, run_at, enqueued_at, finished_at, timeout_us, \
       caused_by, queue_id, enqueued_by, attempt, max_attempts, priority, depth, state, unique_key, args) \
     VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, 0, $9, $10, $11, 'd', $12, $13)",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT4OID,
        BuiltinOid::OIDOID,
        BuiltinOid::INT4OID,
        BuiltinOid::INT2OID,
        BuiltinOid::INT2OID,
        BuiltinOid::TEXTOID,
        BuiltinOid::JSONBOID,
    ],
);

impl Request {
    fn state(&self) -> JobState {
        if self.ready {
            JobState::Available
        } else {
            JobState::Scheduled
        }
    }

    fn is_too_deep(&self) -> bool {
        self.depth > settings::max_depth()
    }

    /// Inserts one job; None when an unfinished job holds the unique key.
    fn insert(&self, id: i64, args: Answer, unique_key: Option<&str>) -> Option<i64> {
        let common = params![
            id,
            self.ready.then_some(id),
            self.run_at,
            self.enqueued_at,
            self.timeout_us,
            self.caused_by,
            self.queue.definition.queue_id,
            self.caller,
            self.max_attempts,
            self.priority,
            self.depth as i16,
            Char(self.state().code()),
            args,
        ];
        let inserted = match unique_key {
            None => spi::run(&INSERT, common),
            Some(key) => {
                let mut with_key = common.to_vec();
                with_key.push(crate::pg::function::IntoAnswer::into_answer(key));
                spi::run(&INSERT_UNIQUE, &with_key)
            }
        };
        (inserted > 0).then_some(id)
    }

    /// Says at commit that jobs became ready, or when they will be due.
    fn announce(&self, first_position: i64, jobs: u64) {
        let Some(slot) = self.queue.slot else { return };
        let key = self.queue.definition.key();
        if self.ready {
            pending::ready(slot, key, self.priority as usize, first_position, jobs);
        } else {
            pending::for_later(slot, key, jobs);
            pending::due(self.run_at.0);
        }
    }

    fn insert_too_deep(&self, id: i64, args: Answer, unique_key: Option<&str>) -> Result<()> {
        let definition = &self.queue.definition;
        spi::run(
            &INSERT_TOO_DEEP,
            params![
                id,
                self.enqueued_at.plus_us(definition.keep_discarded_us),
                self.run_at,
                self.enqueued_at,
                self.timeout_us,
                self.caused_by,
                definition.queue_id,
                self.caller,
                self.max_attempts,
                self.priority,
                self.depth.min(i32::from(i16::MAX)) as i16,
                unique_key,
                args,
            ],
        );
        let error = Error::new(
            SqlState::STATEMENT_TOO_COMPLEX,
            format!("job {id} was discarded: it is {} causes deep", self.depth),
        )
        .detail(format!(
            "Each of the {} jobs before it was enqueued by the one before; the last is job {}.",
            self.depth,
            self.caused_by.unwrap_or_default()
        ))
        .hint(
            "Look for handlers that enqueue each other in a circle; pushy.max_depth is the bound.",
        );
        super::failure::record(
            id,
            0,
            definition.queue_id,
            None,
            self.enqueued_at,
            &error.into(),
        )
    }
}

fn read_unique_key(call: Call, index: usize) -> Result<Option<String>> {
    let key = call.opt_text(index)?;
    if let Some(long) = key.as_ref().filter(|key| key.len() > MAX_UNIQUE_KEY) {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!(
                "unique_key is too long: {} bytes, starting with \"{}\"",
                long.len(),
                long.chars().take(40).collect::<String>()
            ),
        )
        .hint(format!(
            "At most {MAX_UNIQUE_KEY} bytes fit into the index: pass a hash of it, such as pg_catalog.md5(key)."
        )));
    }
    Ok(key)
}

/// Bytes of a unique key: well below a third of a page, the most a B-tree entry may take.
const MAX_UNIQUE_KEY: usize = 1024;

fn enqueue(call: Call) -> Result<i64> {
    let queue = call.text("queue", 0)?;
    let args = call.datum(1).ok_or_else(|| Error::null_argument("args"))?;
    let unique_key = read_unique_key(call, 7)?;
    let places = Places {
        run_at: 2,
        delay: 3,
        priority: 4,
        max_attempts: 5,
        timeout: 6,
    };
    let request = read_request(call, &queue, &places)?;
    identity::as_owner(|| {
        if request.is_too_deep() {
            let id = position::next()?;
            request.insert_too_deep(id, Answer::Datum(args), unique_key.as_deref())?;
            return Ok(id);
        }
        loop {
            let id = position::next()?;
            if let Some(id) = request.insert(id, Answer::Datum(args), unique_key.as_deref()) {
                request.announce(id, 1);
                return Ok(id);
            }
            // The key is held: by a job that may finish before we look, so look again then.
            let holder = spi::connect(|spi| {
                spi.run(
                    &FIND_UNIQUE,
                    params![request.queue.definition.queue_id, unique_key.as_deref()],
                )
                .first()
                .map(|row| row.i64(1))
            });
            if let Some(holder) = holder {
                return Ok(holder);
            }
            crate::pg::interrupts::check();
        }
    })
}

sql_function!(pushy_enqueue, |call| enqueue(call));

fn enqueue_many(call: Call) -> Result<Answer> {
    let queue = call.text("queue", 0)?;
    let args = call.datum(1).ok_or_else(|| Error::null_argument("args"))?;
    let (count, has_null) = spi::count_elements(args);
    if has_null {
        return Err(Error::null_argument("args[…]"));
    }
    let places = Places {
        run_at: 2,
        delay: 3,
        priority: 4,
        max_attempts: 5,
        timeout: 6,
    };
    let request = read_request(call, &queue, &places)?;
    let ids = identity::as_owner(|| {
        if request.is_too_deep() {
            return Err(Error::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("jobs for queue \"{queue}\" would be {} causes deep", request.depth),
            )
            .hint("Look for handlers that enqueue each other in a circle; pushy.max_depth is the bound."));
        }
        let ids = (0..count)
            .map(|_| position::next())
            .collect::<Result<Vec<i64>>>()?;
        if let Some(first) = ids.first() {
            spi::run(
                &INSERT_MANY,
                params![
                    spi::int8_array(&ids),
                    request.ready,
                    request.run_at,
                    request.enqueued_at,
                    request.timeout_us,
                    request.caused_by,
                    request.queue.definition.queue_id,
                    request.caller,
                    request.max_attempts,
                    request.priority,
                    request.depth as i16,
                    Char(request.state().code()),
                    args,
                ],
            );
            request.announce(*first, count as u64);
        }
        Ok(ids)
    })?;
    call.answer_rows(|rows| {
        for id in &ids {
            rows.put(crate::row![*id]);
        }
        Ok(())
    })
}

sql_function!(pushy_enqueue_many, |call| enqueue_many(call));
