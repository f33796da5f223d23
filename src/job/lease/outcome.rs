//! job_complete, job_fail, job_release: how a claimed job ended, in the caller's transaction.

use pushy_core::job_state::JobState;

use crate::errors::{Error, Result, SqlState};
use crate::job::lease::done::{complete_all, Done};
use crate::job::lease::leased_job;
use crate::job::log;
use crate::job::moves::lease;
use crate::job::moves::retry_or_discard::{Attempt, Next};
use crate::pg::function::{Answer, Call};
use crate::pg::value::Uuid;
use crate::pg::{clock, identity, transaction};
use crate::sql_function;

sql_function!(pushy_job_complete_v1, |call| {
    transaction::require_writable(c"pushy.job_complete()");
    let (job, token) = (call.i64("job_id", 0)?, call.uuid("token", 1)?);
    let result = call.datum(2).map_or(Answer::Null, Answer::Datum);
    let done = [Done { job, token, result }];
    let settled = complete_all(&done).map_err(|wrong| wrong.error)?;
    Ok(settled == 1)
});

sql_function!(pushy_job_fail_v1, |call| {
    transaction::require_writable(c"pushy.job_fail()");
    let (job, token) = (call.i64("job_id", 0)?, call.uuid("token", 1)?);
    let error = error(call.opt_text(2)?, call.opt_text(3)?, call.opt_text(4)?)?;
    let next = next(
        read_length(call, "retry_in", 5)?,
        call.opt_bool(6) == Some(true),
    )?;
    let state = fail(job, token, &error, next)?;
    Ok(state.map(JobState::as_str))
});

sql_function!(pushy_job_release_v1, |call| {
    transaction::require_writable(c"pushy.job_release()");
    let (job, token) = (call.i64("job_id", 0)?, call.uuid("token", 1)?);
    release(job, token, read_length(call, "delay", 2)?)
});

fn read_length(call: Call, name: &str, index: usize) -> Result<Option<i64>> {
    match call.opt_interval_us(name, index)? {
        Some(us) if us < 0 => Err(Error::out_of_range(
            name,
            call.shown_interval(index),
            "an interval of 0 or more",
        )),
        length_us => Ok(length_us),
    }
}

/// What a worker says of an error, as a handler's error is kept.
pub(super) fn error(
    message: Option<String>,
    sqlstate: Option<String>,
    detail: Option<String>,
) -> Result<Error> {
    let sqlstate = match sqlstate {
        None => SqlState::RAISE_EXCEPTION,
        Some(code) => read_sqlstate(&code).ok_or_else(|| {
            Error::out_of_range(
                "sqlstate",
                format!("\"{code}\""),
                "five digits or capital letters, such as 'P0001', and none that begins with 00, which is success",
            )
        })?,
    };
    let message = message.unwrap_or_else(|| "the worker said nothing about the error".to_owned());
    Ok(Error {
        detail,
        ..Error::new(sqlstate, message)
    })
}

fn read_sqlstate(code: &str) -> Option<SqlState> {
    let code: [u8; 5] = code.as_bytes().try_into().ok()?;
    let is_code = code
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    let is_error = !code.starts_with(b"00");
    (is_code && is_error).then_some(SqlState(code))
}

pub(super) fn next(retry_in: Option<i64>, discard: bool) -> Result<Option<Next>> {
    match (retry_in, discard) {
        (Some(_), true) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "retry_in and discard are both given",
        )
        .hint("Pass retry_in for another attempt, or discard for none.")),
        (Some(delay), false) => Ok(Some(Next::RetryIn(delay))),
        (None, true) => Ok(Some(Next::Discard)),
        (None, false) => Ok(None),
    }
}

/// The job's new state; None: the caller holds it no longer.
pub(super) fn fail(
    job: i64,
    token: Uuid,
    error: &Error,
    next: Option<Next>,
) -> Result<Option<JobState>> {
    let Some(leased) = leased_job::find(job, token)? else {
        return Ok(None);
    };
    let failed = Attempt {
        started_at: Some(leased.lease.leased_at),
        ended_at: clock::now(),
        error,
        next,
    };
    identity::as_owner(|| {
        lease::fail(
            &leased.queue,
            leased.slot,
            &leased.job,
            &leased.lease,
            &failed,
        )
    })
    .map(Some)
}

/// False: the caller holds the job no longer.
pub(super) fn release(job: i64, token: Uuid, delay_us: Option<i64>) -> Result<bool> {
    let Some(leased) = leased_job::find(job, token)? else {
        return Ok(false);
    };
    let (queue, slot, job, lease) = (&leased.queue, leased.slot, &leased.job, &leased.lease);
    identity::as_owner(|| match delay_us {
        Some(delay) if delay > 0 => {
            lease::snooze(queue, slot, job, lease, clock::now().plus_us(delay))
        }
        _ => lease::release(queue, slot, job, lease),
    })?;
    Ok(true)
}

/// The worker puts the job off for so long, and may say why. False: it holds it no longer.
pub(super) fn snooze(job: i64, token: Uuid, delay_us: i64, reason: Option<&str>) -> Result<bool> {
    let Some(leased) = leased_job::find(job, token)? else {
        return Ok(false);
    };
    let now = clock::now();
    identity::as_owner(|| {
        if let Some(reason) = reason {
            log::put_off(&leased, now, reason)?;
        }
        lease::snooze(
            &leased.queue,
            leased.slot,
            &leased.job,
            &leased.lease,
            now.plus_us(delay_us),
        )
    })?;
    Ok(true)
}
