//! What of a dump is here already: the same job, failure or grant, whatever it is called here. A job is the same by its number in the dump
//! and by when it was enqueued, because each database counts its jobs from 1.

use std::ffi::CStr;

use pushy_core::loaded;

use crate::errors::Result;
use crate::installation::loading::{ask, Link, Loading};
use crate::installation::passed_over::Why;
use crate::pg::spi::{Plan, Row};
use crate::pg::table_guard::Arriving;
use crate::pg::value::Timestamp;
use crate::pg::{array, BuiltinOid, Datum};
use crate::{params, NUMBERS};

use BuiltinOid::{INT4OID, INT8ARRAYOID, INT8OID, OIDOID, TEXTOID, TIMESTAMPTZOID, UUIDOID};

const HINT: &str = "Nothing need be done. To have another state of the database, restore the whole dump into an empty one, or with --clean.";
static HAS_FINISHED: Why = Why {
    why: "these jobs have finished here, and are not to run again",
    hint: HINT,
};
static IS_HERE: Why = Why {
    why: "they are here already",
    hint: HINT,
};
/// What becomes of a row that says a queue.
pub(super) enum Placed {
    /// It is passed over.
    Here(&'static Why),
    /// It has these values.
    As(Vec<(&'static CStr, Datum)>),
}

pub(super) fn place(
    row: Arriving,
    table: &str,
    queue: i32,
    loading: &mut Loading,
) -> Result<Placed> {
    let link = loading.link(queue)?;
    let mut columns = vec![(c"queue_id", Datum::from(link.number))];
    let enqueued_at = row.int8(c"enqueued_at").map(Timestamp);
    let why = match table {
        "queue" => ask(&QUEUE, params![link.number], |row| row.bool(1))?.then_some(&IS_HERE),
        "queue_acl" => is_grant(row, link)?.then_some(&IS_HERE),
        "dropped_queue" => {
            ask(&DROPPED, params![link.number], |row| row.bool(1))?.then_some(&IS_HERE)
        }
        "failure" => {
            let job = row.int8(c"job_id").unwrap_or_default();
            let number = loading.number(queue, job, enqueued_at)?;
            columns.push((c"job_id", Datum::from(number)));
            let may_be = loading.may_be_here(job, number)?;
            let numbers = || candidates(queue, job, link, number);
            (may_be && is_failure(row, link, number, numbers())?).then_some(&IS_HERE)
        }
        "lease" | "job_log" | "checkpoint" => {
            let job = row.int8(c"job_id").unwrap_or_default();
            // Where the job goes when its lease ends.
            if let Some(position) = row.int8(c"position").map(loaded::position) {
                (NUMBERS.pass_over)(position);
                columns.push((c"position", Datum::from(position)));
            }
            let number = loading.number(queue, job, enqueued_at)?;
            columns.push((c"job_id", Datum::from(number)));
            let numbers = candidates(queue, job, link, number);
            (is_anothers(number, link)? || is_kept(row, table, number, numbers)?)
                .then_some(&IS_HERE)
        }
        "promised_cancel" => {
            let job = row.int8(c"job_id").unwrap_or_default().saturating_abs();
            let number = loading.number(queue, job, enqueued_at)?;
            // Until its queue is at home.
            columns.push((c"job_id", Datum::from(-number)));
            is_promise(row, candidates(queue, job, link, number))?.then_some(&IS_HERE)
        }
        "live_job" | "finished_job" => {
            place_job(row, queue, link, table == "live_job", loading, &mut columns)?
        }
        table if table.starts_with("finished_job") => {
            place_job(row, queue, link, false, loading, &mut columns)?
        }
        _ => None,
    };
    Ok(why.map_or(Placed::As(columns), Placed::Here))
}

/// The numbers that a job of the dump may have here: its own, and those of each load, and of one of another copy.
fn candidates(queue: i32, job: i64, link: Link, number: i64) -> Vec<i64> {
    let each_load = (0..=link.step + 1).map(|step| loaded::job_number(job, queue, step));
    [job, number].into_iter().chain(each_load).collect()
}

// Beside a loaded job that waits for its queue the end of the same comes in, of a dump of later: with it that one goes when the
// queue comes home.
static SAME: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) ANY ($1) AND f.enqueued_at OPERATOR(pg_catalog.=) $2), \
            EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) ANY ($1) AND j.enqueued_at OPERATOR(pg_catalog.=) $2 \
                       AND (j.queue_id OPERATOR(pg_catalog.>) 0 OR EXISTS (SELECT FROM pushy_internal.loaded_queue l \
                                WHERE l.queue_id OPERATOR(pg_catalog.=) j.queue_id AND l.number_there IS NULL))), \
            EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) ANY ($1) AND j.enqueued_at OPERATOR(pg_catalog.=) $2), \
            EXISTS (SELECT FROM pushy_internal.loaded_queue l WHERE l.queue_id OPERATOR(pg_catalog.=) $3 AND l.number_there IS NULL)",
    &[INT8ARRAYOID, TIMESTAMPTZOID, INT4OID],
);

static HAS_KEY: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.unique_key OPERATOR(pg_catalog.=) $2 \
                       AND j.beside OPERATOR(pg_catalog.=) $3)",
    &[INT4OID, TEXTOID, INT8OID],
);

/// Beside which job of its key one stands here. Where another copy of the database had one beside the same, both run: this one stands beside
/// what no other does.
fn place_of_key(
    row: Arriving,
    queue: i32,
    number: i64,
    loading: &mut Loading,
) -> Result<Option<i64>> {
    let (Some(key), Some(there)) = (row.text(c"unique_key")?, row.int8(c"beside")) else {
        return Ok(None);
    };
    let here = if there > 0 {
        loading.job(queue, there)?
    } else {
        there
    };
    let link = loading.link(queue)?;
    let is_taken = loading.has_keys(queue)?
        && ask(&HAS_KEY, params![link.number, key, here], |row| row.bool(1))?;
    Ok(Some(if is_taken { -number } else { here }))
}

fn place_job(
    row: Arriving,
    queue: i32,
    link: Link,
    is_live: bool,
    loading: &mut Loading,
    columns: &mut Vec<(&'static CStr, Datum)>,
) -> Result<Option<&'static Why>> {
    let (Some(job), Some(enqueued_at)) = (row.int8(c"id"), row.int8(c"enqueued_at")) else {
        return Ok(None);
    };
    // Positions are of the queue, where later ones come behind. A leased one may come back where it stood first.
    let position = row.int8(c"position");
    let believed = loaded::position(position.unwrap_or(job));
    (NUMBERS.pass_over)(believed);
    if position.is_some_and(|position| position != believed) {
        columns.push((c"position", Datum::from(believed)));
    }
    let enqueued_at = Timestamp(enqueued_at);
    let number = loading.number(queue, job, Some(enqueued_at))?;
    if loading.may_be_here(job, number)? {
        let numbers = candidates(queue, job, link, number);
        let params = params![array::of_int8s(&numbers), enqueued_at, link.number];
        let (has_finished, is_ours, is_live_here, runs_here) = ask(&SAME, params, |row| {
            (row.bool(1), row.bool(2), row.bool(3), row.bool(4))
        })?;
        if has_finished {
            return Ok(Some(if is_live { &HAS_FINISHED } else { &IS_HERE }));
        }
        if is_ours || (is_live && is_live_here) {
            return Ok(Some(&IS_HERE));
        }
        if runs_here {
            // Since the statement began. What has run and is gone meanwhile is not to come to it.
            loading.forget(queue);
            let link = loading.link(queue)?;
            columns[0] = (c"queue_id", Datum::from(link.number));
            return place_job(row, queue, link, is_live, loading, columns);
        }
    }
    columns.push((c"id", Datum::from(number)));
    if let Some(other) = row.int8(c"caused_by").filter(|other| *other > 0) {
        columns.push((c"caused_by", Datum::from(loading.job(queue, other)?)));
    }
    if is_live {
        let beside = place_of_key(row, queue, number, loading)?;
        columns.extend(beside.map(|beside| (c"beside", Datum::from(beside))));
    }
    Ok(None)
}

static QUEUE: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) $1)",
    &[INT4OID],
);

static GRANT: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.queue_acl a WHERE a.queue_id OPERATOR(pg_catalog.=) $1 AND a.grantee OPERATOR(pg_catalog.=) $2 \
                       AND a.privilege OPERATOR(pg_catalog.=) $3)",
    &[INT4OID, OIDOID, TEXTOID],
);

fn is_grant(row: Arriving, link: Link) -> Result<bool> {
    let (Some(grantee), Some(privilege)) = (row.int4(c"grantee"), row.text(c"privilege")?) else {
        return Ok(false);
    };
    let grantee = crate::pg::Oid::from(grantee as u32);
    ask(
        &GRANT,
        params![link.number, grantee, privilege.as_str()],
        |row| row.bool(1),
    )
}

static DROPPED: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.dropped_queue d WHERE d.queue_id OPERATOR(pg_catalog.=) $1)",
    &[INT4OID],
);

static FAILURE: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.failure f WHERE f.job_id OPERATOR(pg_catalog.=) ANY ($1) AND f.attempt OPERATOR(pg_catalog.=) $2 \
                       AND f.failed_at OPERATOR(pg_catalog.=) $3) \
         OR EXISTS (SELECT FROM pushy_internal.failure f WHERE f.job_id OPERATOR(pg_catalog.=) $4 AND f.queue_id OPERATOR(pg_catalog.=) $5 \
                       AND f.attempt OPERATOR(pg_catalog.=) $2)",
    &[INT8ARRAYOID, INT4OID, TIMESTAMPTZOID, INT8OID, INT4OID],
);

/// The same failure, or another of this attempt: in another copy of the database the same job may have failed, too.
fn is_failure(row: Arriving, link: Link, number: i64, numbers: Vec<i64>) -> Result<bool> {
    let (Some(attempt), Some(failed_at)) = (row.int4(c"attempt"), row.int8(c"failed_at")) else {
        return Ok(false);
    };
    let failed_at = Timestamp(failed_at);
    let numbers = array::of_int8s(&numbers);
    let params = params![numbers, attempt, failed_at, number, link.number];
    ask(&FAILURE, params, |row| row.bool(1))
}

// That one was never leased to whom the dump says, nor said what it says.
static JOB_OF_OTHERS: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM (SELECT j.queue_id FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) $1 \
                                 UNION ALL \
                                 SELECT f.queue_id FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) $1) j \
                     WHERE j.queue_id OPERATOR(pg_catalog.<>) $2)",
    &[INT8OID, INT4OID],
);

fn is_anothers(number: i64, link: Link) -> Result<bool> {
    ask(&JOB_OF_OTHERS, params![number, link.number], |row| {
        row.bool(1)
    })
}

static LEASE: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.lease l WHERE l.job_id OPERATOR(pg_catalog.=) $1 \
                       OR (l.job_id OPERATOR(pg_catalog.=) ANY ($2) AND l.token OPERATOR(pg_catalog.=) $3))",
    &[INT8OID, INT8ARRAYOID, UUIDOID],
);

static LINE: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.job_log l WHERE l.line OPERATOR(pg_catalog.=) $3 \
                       AND (l.job_id OPERATOR(pg_catalog.=) $1 OR (l.job_id OPERATOR(pg_catalog.=) ANY ($2) AND l.said_at OPERATOR(pg_catalog.=) $4)))",
    &[INT8OID, INT8ARRAYOID, INT4OID, TIMESTAMPTZOID],
);

static CHECKPOINT: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.checkpoint c WHERE c.job_id OPERATOR(pg_catalog.=) $1)",
    &[INT8OID],
);

/// Whether the same is here, or another of this number, beside which it cannot be.
fn is_kept(row: Arriving, table: &str, number: i64, numbers: Vec<i64>) -> Result<bool> {
    let numbers = array::of_int8s(&numbers);
    let is = |row: Row<'_>| row.bool(1);
    match table {
        "lease" => ask(&LEASE, params![number, numbers, row.uuid(c"token")], is),
        "checkpoint" => ask(&CHECKPOINT, params![number], is),
        _ => {
            let said_at = row.int8(c"said_at").map(Timestamp);
            let line = params![number, numbers, row.int4(c"line"), said_at];
            ask(&LINE, line, is)
        }
    }
}

static PROMISE: Plan = Plan::for_any_values(
    "SELECT EXISTS (SELECT FROM pushy_internal.promised_cancel p WHERE pg_catalog.abs(p.job_id) OPERATOR(pg_catalog.=) ANY ($1) \
                       AND p.promise OPERATOR(pg_catalog.=) $2)",
    &[INT8ARRAYOID, UUIDOID],
);

fn is_promise(row: Arriving, numbers: Vec<i64>) -> Result<bool> {
    let Some(promise) = row.uuid(c"promise") else {
        return Ok(false);
    };
    ask(
        &PROMISE,
        params![array::of_int8s(&numbers), promise],
        |row| row.bool(1),
    )
}
