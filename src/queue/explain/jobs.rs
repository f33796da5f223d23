//! The jobs of a queue that waits: how many there are, and what they wait for.

use crate::errors::{quote_literal, Result};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;
use crate::queue::definition::QueueDefinition;
use crate::shared::obstacle::{blocked, said, Finding};

/// How many unfinished jobs wait for what.
pub(super) struct Jobs {
    pub(super) ready: i64,
    scheduled: i64,
    retryable: i64,
    /// When the first of those that wait is due, as this session writes a time.
    next_due: Option<String>,
    pub(super) overdue: bool,
    /// Names of prepared transactions of this database, which may hold jobs that nobody sees.
    prepared: Option<String>,
}

static COUNT: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\"), \
            pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 's'::pg_catalog.\"char\"), \
            pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'r'::pg_catalog.\"char\"), \
            pg_catalog.min(j.run_at) FILTER (WHERE j.position IS NULL)::pg_catalog.text, \
            COALESCE(pg_catalog.min(j.run_at) FILTER (WHERE j.position IS NULL) \
                     OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp(), false), \
            (SELECT pg_catalog.string_agg(x.gid, ', ') FROM pg_catalog.pg_prepared_xacts x \
              WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database()) \
       FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

impl Jobs {
    pub(super) fn count(queue: &QueueDefinition) -> Result<Self> {
        spi::connect(|spi| {
            let table = spi.run(&COUNT, params![queue.queue_id]);
            let row = table.row(0);
            Ok(Self {
                ready: row.i64(1),
                scheduled: row.i64(2),
                retryable: row.i64(3),
                next_due: row.opt_text(4)?,
                overdue: row.bool(5),
                prepared: row.opt_text(6)?,
            })
        })
    }

    pub(super) fn explain(&self, queue: &QueueDefinition, stands_still: bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        let next = self.next_due.as_deref().unwrap_or("never");
        if self.ready + self.scheduled + self.retryable == 0 {
            findings.push(said("no unfinished job is in the queue"));
        }
        if self.overdue {
            let who = if stands_still {
                ""
            } else {
                "; the scheduler is about to take them up"
            };
            findings.push(said(format!("jobs have been due since {next}{who}")));
        } else if self.retryable > 0 {
            findings.push(blocked(
                format!(
                    "{} failed and {} next attempt; the first waiting job is due at {next}",
                    jobs(self.retryable),
                    if self.retryable == 1 {
                        "waits for its"
                    } else {
                        "wait for their"
                    }
                ),
                format!(
                    // for people to run
                    "SELECT pushy.job_retry(id) FROM pushy.jobs WHERE queue = {} AND state = 'retryable'",
                    quote_literal(&queue.name)
                ),
            ));
        } else if self.scheduled > 0 {
            findings.push(said(format!(
                "{} not due yet, the first at {next}",
                if self.scheduled == 1 {
                    "1 job is".to_owned()
                } else {
                    format!("{} jobs are", self.scheduled)
                }
            )));
        }
        if let (0, Some(prepared)) = (self.ready, &self.prepared) {
            findings.push(said(format!(
                "jobs of prepared transactions are not seen before COMMIT PREPARED; open here: {prepared}"
            )));
        }
        findings
    }
}

pub(super) fn jobs(count: i64) -> String {
    if count == 1 {
        "1 job".to_owned()
    } else {
        format!("{count} jobs")
    }
}
