//! job_trace: a job with what caused it and what it caused.

use crate::errors::{Error, Result};
use crate::job::live::{self, Whereabouts};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, BuiltinOid};
use crate::queue::definition;
use crate::queue::privilege::{self, Privilege};
use crate::sql_function;

/// From the first cause that the caller may see down to the last effect. There is no index on caused_by, which
/// every job would pay for: what is younger than the first cause is read once.
static TRACE: Plan = Plan::new(
    "WITH RECURSIVE up AS ( \
       SELECT j.id, j.caused_by FROM pushy.jobs j WHERE j.id OPERATOR(pg_catalog.=) $1 \
       UNION ALL \
       SELECT j.id, j.caused_by FROM up JOIN pushy.jobs j ON j.id OPERATOR(pg_catalog.=) up.caused_by), \
     root AS (SELECT pg_catalog.min(up.id) AS id FROM up), \
     younger AS MATERIALIZED ( \
       SELECT j.id, j.caused_by FROM pushy.jobs j, root \
        WHERE j.caused_by IS NOT NULL AND j.id OPERATOR(pg_catalog.>) root.id), \
     down AS ( \
       SELECT root.id, ARRAY[root.id] AS path FROM root \
       UNION ALL \
       SELECT y.id, down.path OPERATOR(pg_catalog.||) y.id \
         FROM down JOIN younger y ON y.caused_by OPERATOR(pg_catalog.=) down.id) \
     SELECT pg_catalog.repeat('   ', pg_catalog.cardinality(down.path) OPERATOR(pg_catalog.-) 2) \
              OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.cardinality(down.path) OPERATOR(pg_catalog.>) 1 THEN '└─ ' ELSE '' END \
              OPERATOR(pg_catalog.||) j.queue OPERATOR(pg_catalog.||) ' ' OPERATOR(pg_catalog.||) j.id::pg_catalog.text, \
            j.id, j.caused_by, j.depth, j.queue, j.state, j.attempt, j.enqueued_at, j.finished_at, j.args, j.last_error \
       FROM down JOIN pushy.jobs j ON j.id OPERATOR(pg_catalog.=) down.id \
      ORDER BY down.path",
    &[BuiltinOid::INT8OID],
);

const COLUMNS: i32 = 11;

/// Who has another privilege on the job's queue may know which one is missing.
#[cold]
fn unseen(id: i64) -> Result<Error> {
    let found = identity::as_owner(|| {
        let queue_id = match live::find_anywhere(id)? {
            Some(Whereabouts::Live(job)) => job.queue_id,
            Some(Whereabouts::Finished(job)) => job.queue_id,
            None => return Ok(None),
        };
        let grants = privilege::grants(queue_id)?;
        Ok(definition::find_by_id(queue_id)?.map(|queue| (queue, grants)))
    })?;
    let role = identity::current_user();
    let refused = found.map(|(queue, grants)| {
        privilege::require_for_job(id, &queue, &grants, role, Privilege::Monitor)
    });
    Ok(match refused {
        Some(Err(error)) => error,
        _ => Error::no_such_job(id),
    })
}

// As the caller: the view shows what that role may see.
sql_function!(pushy_job_trace_v1, |call| {
    let id = call.i64("job_id", 0)?;
    call.answer_rows(|rows| {
        spi::connect(|spi| {
            let found = spi.run_in_active_snapshot(&TRACE, params![id]);
            if found.is_empty() {
                return Result::Err(unseen(id)?);
            }
            for row in found.rows() {
                let columns: Vec<_> = (1..=COLUMNS).map(|at| row.answer(at)).collect();
                rows.put(&columns);
            }
            Ok(())
        })
    })
});
