//! enqueue, enqueue_many: jobs added in the caller's transaction.

use super::moves::enqueue::Request;
use crate::errors::{Error, Result, SqlState};
use crate::pg::function::{Answer, Call};
use crate::pg::value::Timestamp;
use crate::pg::{array, clock, identity, jsonb, transaction, Datum};
use crate::queue::cache;
use crate::queue::privilege::{self, Privilege};
use crate::{settings, sql_function};

/// The places of the optional arguments that enqueue and enqueue_many share.
const RUN_AT: usize = 2;
const DELAY: usize = 3;
const PRIORITY: usize = 4;
const MAX_ATTEMPTS: usize = 5;
const TIMEOUT: usize = 6;

fn read_request(call: Call, queue: &str) -> Result<Request> {
    let queue = cache::get(queue)?;
    let caller = identity::current_user();
    let (definition, grants) = (&queue.definition, &queue.grants);
    privilege::require(definition, grants, caller, Privilege::Enqueue)?;
    let now = clock::now();
    let run_at = read_due_time(call, now)?;
    let ready = run_at.is_none_or(|due| due <= now);
    let priority = call.opt_i32(PRIORITY).unwrap_or(queue.definition.priority);
    if !(0..=9).contains(&priority) {
        return Err(Error::out_of_range(
            "priority",
            priority,
            "0 (first) to 9 (last)",
        ));
    }
    let max_attempts = call.opt_i32(MAX_ATTEMPTS);
    if let Some(attempts) = max_attempts.filter(|attempts| *attempts < 1) {
        return Err(Error::out_of_range("max_attempts", attempts, "1 or more"));
    }
    let timeout_us = call.opt_interval_us("timeout", TIMEOUT)?;
    if timeout_us.is_some_and(|us| us < 0) {
        return Err(Error::out_of_range(
            "timeout",
            call.shown_interval(TIMEOUT),
            "a positive interval, or 0 for none",
        ));
    }
    timeout_us.map_or(Ok(()), settings::check_timeout)?;
    let mut request = Request::plain(queue, caller, now);
    request.run_at = run_at.filter(|due| *due > now).unwrap_or(now);
    request.ready = ready;
    request.priority = priority as i16;
    request.max_attempts = max_attempts;
    request.timeout_us = timeout_us;
    Ok(request)
}

fn read_due_time(call: Call, now: Timestamp) -> Result<Option<Timestamp>> {
    let run_at = call.opt_timestamp(RUN_AT);
    let delayed = call.opt_interval_from("delay", DELAY, now)?;
    match (run_at, delayed) {
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
        (Some(due), None) => Ok(Some(due)),
        (None, Some(due)) if due < now => Err(Error::out_of_range(
            "delay",
            call.shown_interval(DELAY),
            "an interval of 0 or more; leave it out to run the job now",
        )),
        (None, delayed) => Ok(delayed),
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
    transaction::require_writable(c"pushy.enqueue()");
    let queue = call.text("queue", 0)?;
    let args = call.datum(1).unwrap_or_else(|| jsonb::from_json(b"{}"));
    let unique_key = read_unique_key(call, 7)?;
    let request = read_request(call, &queue)?;
    identity::as_owner(|| match &unique_key {
        Some(key) => request.add_unique(args, key),
        None => Ok(request.add(&[args])?[0]),
    })
}

sql_function!(pushy_enqueue_v1, |call| enqueue(call));

fn enqueue_many(call: Call) -> Result<Answer> {
    transaction::require_writable(c"pushy.enqueue_many()");
    let queue = call.text("queue", 0)?;
    let args = call.datum(1).ok_or_else(|| Error::null_argument("args"))?;
    let args = array::jsonbs(args)
        .enumerate()
        .map(|(at, element)| {
            element.ok_or_else(|| {
                Error::null_argument(&format!("args[{}]", at + 1))
                    .hint("Write '{}' for a job without arguments; only args as a whole can be left out, of pushy.enqueue.")
            })
        })
        .collect::<Result<Vec<Datum>>>()?;
    let request = read_request(call, &queue)?;
    let ids = identity::as_owner(|| request.add(&args))?;
    call.answer_rows(|rows| {
        for id in &ids {
            rows.put(crate::row![*id]);
        }
        Ok(())
    })
}

sql_function!(pushy_enqueue_many_v1, |call| enqueue_many(call));
