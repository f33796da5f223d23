//! What a job of the dump is called here, and a row that names it.

use pushy_core::loaded::{self, LOCAL};

use super::{ask, Loading};
use crate::errors::Result;
use crate::pg::spi::Plan;
use crate::pg::value::Timestamp;
use crate::pg::{array, BuiltinOid};
use crate::shared::numbers::NEVER;
use crate::{params, NUMBERS};

/// Numbers that are looked at together.
const AT_ONCE: u32 = 8;

/// Of all rows that a number has here: when their job was enqueued.
macro_rules! rows_of {
    ($number:literal) => {
        concat!(
            "SELECT j.enqueued_at FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT f.enqueued_at FROM pushy_internal.finished_job f WHERE f.id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT f.enqueued_at FROM pushy_internal.failure f WHERE f.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT l.enqueued_at FROM pushy_internal.lease l WHERE l.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT l.enqueued_at FROM pushy_internal.job_log l WHERE l.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT c.enqueued_at FROM pushy_internal.checkpoint c WHERE c.job_id OPERATOR(pg_catalog.=) ", $number,
            " UNION ALL SELECT p.enqueued_at FROM pushy_internal.promised_cancel p \
               WHERE p.job_id OPERATOR(pg_catalog.=) ANY (ARRAY[", $number, ", OPERATOR(pg_catalog.-) ", $number, "])"
        )
    };
}

static IS_ANOTHERS: Plan = Plan::for_any_values(
    concat!(
        "SELECT EXISTS (SELECT FROM (",
        rows_of!("$1"),
        ") r WHERE r.enqueued_at OPERATOR(pg_catalog.<>) $2)"
    ),
    &[BuiltinOid::INT8OID, BuiltinOid::TIMESTAMPTZOID],
);

// The number that the job has, or else the first that no other has.
static FREE_OR_ITS: Plan = Plan::for_any_values(
    concat!(
        "SELECT (SELECT n.number FROM pg_catalog.unnest($1) WITH ORDINALITY AS n (number, place), \
                LATERAL (SELECT pg_catalog.bool_or(r.enqueued_at OPERATOR(pg_catalog.=) $2) AS is_its, pg_catalog.bool_or(r.enqueued_at OPERATOR(pg_catalog.<>) $2) AS is_anothers \
                           FROM (",
        rows_of!("n.number"),
        ") r) has \
          WHERE has.is_anothers IS NOT TRUE ORDER BY has.is_its IS TRUE DESC, n.place LIMIT 1)"
    ),
    &[BuiltinOid::INT8ARRAYOID, BuiltinOid::TIMESTAMPTZOID],
);

impl Loading {
    /// What a job of the dump is called, of whatever row that names it. It is passed over first, so that ours go on behind it if it is
    /// kept.
    pub(in crate::installation) fn job(&mut self, queue: i32, job: i64) -> Result<i64> {
        let link = self.link(queue)?;
        if self.keeps(queue, link)? {
            (NUMBERS.pass_over)(job);
            if loaded::may_keep(job) && job < self.drawn_from()? {
                return Ok(job);
            }
        }
        Ok(loaded::job_number(job, queue, link.step))
    }

    /// What a row is called that is of a job: as that is, which it names by its number and by when it was enqueued. Copies of a database
    /// give the same numbers to different jobs.
    pub(in crate::installation) fn number(
        &mut self,
        queue: i32,
        job: i64,
        enqueued_at: Option<Timestamp>,
    ) -> Result<i64> {
        let number = self.job(queue, job)?;
        // 0.1.0 has not said it of all.
        let Some(enqueued_at) = enqueued_at else {
            return Ok(number);
        };
        let may_be_taken = self.may_be_here(job, number)?;
        if !may_be_taken
            || !ask(&IS_ANOTHERS, params![number, enqueued_at], |row| {
                row.bool(1)
            })?
        {
            return Ok(number);
        }
        let step = self.link(queue)?.step;
        for step in (step..).step_by(AT_ONCE as usize).take(2048) {
            let steps = step..step + AT_ONCE;
            let numbers: Vec<i64> = steps
                .map(|step| loaded::job_number(job, queue, step))
                .collect();
            let found = ask(
                &FREE_OR_ITS,
                params![array::of_int8s(&numbers), enqueued_at],
                |row| row.opt_i64(1),
            )?;
            if let Some(number) = found {
                return Ok(number);
            }
        }
        Ok(number)
    }

    /// Whether a row of this job can have come before, under the number that it has now.
    pub(in crate::installation) fn may_be_here(&self, job: i64, number: i64) -> Result<bool> {
        Ok(number != job || job <= self.issued || job >= LOCAL || self.drawn_from()? != NEVER)
    }
}
