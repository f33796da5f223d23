//! The jobs of a queue that waits: how many there are, and what they wait for.

use crate::errors::{quote_literal, Result};
use crate::obstacle::{blocked, said, Finding};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, BuiltinOid};
use crate::queue::definition::QueueDefinition;
use crate::shared::queue_slot::QueueSlot;
use crate::shared::Shared;
use std::sync::atomic::Ordering;

/// How many unfinished jobs wait for what.
pub(super) struct Jobs {
    pub(super) ready: i64,
    scheduled: i64,
    retryable: i64,
    /// When the first of those that wait is due, as this session writes a time.
    next_due: Option<String>,
    pub(super) overdue: bool,
    /// How many workers outside have leased, and until when the first of them.
    leased: i64,
    first_end: Option<String>,
    /// How many of those are over, and are to be taken back.
    pub(super) over: i64,
    /// Of those that wait for another attempt, the last that failed: which, when and why.
    last_failure: Option<String>,
    /// Names of prepared transactions of this database, which may hold jobs that nobody sees.
    prepared: Option<String>,
}

static COUNT: Plan = Plan::new(
    "SELECT pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\"), \
            pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 's'::pg_catalog.\"char\"), \
            pg_catalog.count(*) FILTER (WHERE j.state OPERATOR(pg_catalog.=) 'r'::pg_catalog.\"char\"), \
            pg_catalog.min(j.run_at) FILTER (WHERE j.position IS NULL AND j.state OPERATOR(pg_catalog.<>) 'x'::pg_catalog.\"char\")::pg_catalog.text, \
            COALESCE(pg_catalog.min(j.run_at) FILTER (WHERE j.position IS NULL AND j.state OPERATOR(pg_catalog.<>) 'x'::pg_catalog.\"char\") \
                     OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp(), false), \
            (SELECT pg_catalog.count(*) FROM pushy_internal.lease l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND NOT l.inside), \
            (SELECT pg_catalog.min(l.until)::pg_catalog.text FROM pushy_internal.lease l WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND NOT l.inside), \
            (SELECT pg_catalog.count(*) FROM pushy_internal.lease l \
              WHERE l.queue_id OPERATOR(pg_catalog.=) $1 AND NOT l.inside AND l.until OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()) \
       FROM pushy_internal.live_job j WHERE j.queue_id OPERATOR(pg_catalog.=) $1",
    &[BuiltinOid::INT4OID],
);

static PREPARED: Plan = Plan::new(
    "SELECT x.gid FROM pg_catalog.pg_prepared_xacts x \
      WHERE x.database OPERATOR(pg_catalog.=) pg_catalog.current_database() ORDER BY x.prepared, x.gid",
    &[],
);

static LAST_FAILURE: Plan = Plan::new(
    "SELECT pg_catalog.format('job %s at %s: %s', f.job_id, f.failed_at, f.message) \
       FROM pushy_internal.live_job j JOIN pushy_internal.failure f ON f.job_id OPERATOR(pg_catalog.=) j.id AND f.queue_id OPERATOR(pg_catalog.=) j.queue_id \
      WHERE j.queue_id OPERATOR(pg_catalog.=) $1 AND j.state OPERATOR(pg_catalog.=) 'r'::pg_catalog.\"char\" \
      ORDER BY f.failed_at DESC LIMIT 1",
    &[BuiltinOid::INT4OID],
);

// By what is removed next; where the queue has kept them for another time until lately, some are not found.
static DISCARDED: Plan = Plan::new(
    "SELECT pg_catalog.count(*), (pg_catalog.array_agg(d.last ORDER BY d.finished_at DESC))[1] \
       FROM (SELECT f.finished_at, pg_catalog.format('job %s at %s', f.id, f.finished_at) AS last \
               FROM ONLY pushy_internal.finished_job f \
              WHERE f.queue_id OPERATOR(pg_catalog.=) $1 AND f.state OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\" \
                AND f.expires_at OPERATOR(pg_catalog.>) $2 AND f.finished_at OPERATOR(pg_catalog.>) $3 \
              LIMIT 10000) d",
    &[BuiltinOid::INT4OID, BuiltinOid::TIMESTAMPTZOID, BuiltinOid::TIMESTAMPTZOID],
);

/// Jobs that were discarded in the last day: nothing runs them again by itself. As the extension's owner.
pub(super) fn discarded(queue: &QueueDefinition) -> Result<Option<Finding>> {
    const DAY_US: i64 = 24 * 3_600_000_000;
    let since = clock::now().plus_us(-DAY_US);
    let expire_after = since.plus_us(queue.keep_discarded_us);
    let (count, last) = spi::connect(|spi| {
        let params = params![queue.queue_id, expire_after, since];
        let found = spi.run(&DISCARDED, params);
        Ok((found.row(0).i64(1), found.row(0).opt_text(2)?))
    })?;
    let name = quote_literal(&queue.name);
    Ok(last.map(|last| {
        blocked(
            format!(
                "{} discarded in the last day, the last was {last}",
                if count == 1 { "1 job was".to_owned() } else { format!("{count} jobs were") }
            ),
            format!(
                // for people to run
                "Look at SELECT * FROM pushy.failures WHERE queue = {name}; to run them again: SELECT pushy.job_retry(id) FROM pushy.jobs WHERE queue = {name} AND state = 'discarded'"
            ),
        )
    }))
}

impl Jobs {
    pub(super) fn count(queue: &QueueDefinition) -> Result<Self> {
        spi::connect(|spi| {
            let failed = spi.run(&LAST_FAILURE, params![queue.queue_id]);
            let last_failure = failed.first().map(|row| row.text(1)).transpose()?;
            let prepared = spi.run(&PREPARED, params![]);
            let gids = prepared.rows().map(|row| Ok(quote_literal(&row.text(1)?)));
            let gids = gids.collect::<Result<Vec<_>>>()?;
            let table = spi.run(&COUNT, params![queue.queue_id]);
            let row = table.row(0);
            Ok(Self {
                ready: row.i64(1),
                scheduled: row.i64(2),
                retryable: row.i64(3),
                next_due: row.opt_text(4)?,
                overdue: row.bool(5),
                last_failure,
                prepared: (!gids.is_empty()).then(|| gids.join(", ")),
                leased: row.i64(6),
                first_end: row.opt_text(7)?,
                over: row.i64(8),
            })
        })
    }

    /// Why ready jobs of a queue for workers outside wait; None where they wait for leases that are over, which is said of those.
    pub(super) fn of_workers_outside(
        &self,
        queue: &QueueDefinition,
        shared: &Shared,
    ) -> Option<Finding> {
        let limit = queue.concurrency;
        match limit.filter(|limit| i64::from(*limit) <= self.leased) {
            Some(_) if self.over > 0 => None,
            Some(limit) => Some(self.at_its_limit(queue, limit)),
            None => Some(self.below_its_limit(queue, shared)),
        }
    }

    fn below_its_limit(&self, queue: &QueueDefinition, shared: &Shared) -> Finding {
        let index = shared.find_queue(queue.key());
        let slot = index.map(|index| &shared.queues()[index]);
        let at_work = slot.map_or(0, QueueSlot::at_work_inside);
        if (queue.concurrency)
            .is_some_and(|limit| i64::from(limit) <= self.leased + i64::from(at_work))
        {
            return said("executors are at work on jobs that they began when the queue had a handler, as many as its concurrency allows with those that are leased");
        }
        if slot.is_some_and(|slot| slot.claimable.has_sleepers()) {
            let is_let_in = |index| shared.lets_in_outside(index, clock::now().0);
            return said(if index.is_some_and(is_let_in) {
                "a worker outside waits, and is about to claim"
            } else {
                "a worker outside waits, and gets nothing while Pushy's own workers do not come to the database, which takes no connections, say"
            });
        }
        let asked_at = slot.map_or(0, |slot| slot.asked_at.load(Ordering::Relaxed));
        if asked_at == 0 {
            return said("no worker outside has asked for jobs since the server started");
        }
        let seconds = clock::now().0.saturating_sub(asked_at).max(0) as f64 / 1e6;
        if seconds < 1.0 {
            // It polls, and is about to come again.
            return said("a worker outside has asked for jobs in the last second");
        }
        said(format!(
            "no worker outside has asked for jobs for {seconds:.1} s"
        ))
    }

    fn at_its_limit(&self, queue: &QueueDefinition, limit: i32) -> Finding {
        let until = self.until();
        if limit == 1 {
            return said(format!(
                "jobs of the queue are leased one after the other, as its concurrency of 1 says: one is leased {until}"
            ));
        }
        blocked(
            format!(
                "as many jobs are leased to workers outside as the queue's concurrency of {limit} allows, the first {until}"
            ),
            format!(
                "SELECT pushy.queue_alter({}, concurrency => {})",
                quote_literal(&queue.name),
                limit + 1
            ),
        )
    }

    fn until(&self) -> String {
        match self.first_end.as_deref() {
            Some("infinity") | None => "until its session ends".to_owned(),
            Some(end) => format!("until {end}"),
        }
    }

    fn are_over(&self, stands_still: bool) -> Finding {
        let since = self.first_end.as_deref().unwrap_or("never");
        let who = if stands_still {
            "and a scheduler would take back what was leased"
        } else {
            "and the scheduler is about to take back what was leased"
        };
        said(match self.over {
            1 => format!("the lease of 1 job is over since {since}, {who}"),
            over => format!("the leases of {over} jobs are over, the first since {since}, {who}"),
        })
    }

    pub(super) fn explain(
        &self,
        queue: &QueueDefinition,
        stands_still: bool,
        names_holders: bool,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let next = self.next_due.as_deref().unwrap_or("never");
        if self.over > 0 {
            findings.push(self.are_over(stands_still));
        } else if self.leased > 0 && self.ready == 0 {
            let (count, until) = (jobs(self.leased), self.until());
            let verb = if self.leased == 1 { "is" } else { "are" };
            let first = if self.leased == 1 { "" } else { ", the first" };
            findings.push(said(format!(
                "{count} {verb} leased to workers outside{first} {until}"
            )));
        }
        if self.ready + self.scheduled + self.retryable + self.leased == 0 {
            findings.push(said(
                "no unfinished job is in the queue; what an open transaction has enqueued is not seen before its commit",
            ));
        }
        if self.overdue && names_holders {
            // Who keeps them from being taken up was said.
        } else if self.overdue {
            let who = if stands_still {
                ""
            } else {
                "; the scheduler is about to take them up"
            };
            findings.push(said(format!("jobs have been due since {next}{who}")));
        } else if self.retryable > 0 {
            findings.push(blocked(
                format!(
                    "{} failed and {} next attempt; the first waiting job is due at {next}{}",
                    jobs(self.retryable),
                    if self.retryable == 1 {
                        "waits for its"
                    } else {
                        "wait for their"
                    },
                    self.last_failure.as_ref().map_or_else(String::new, |last| format!("; the last to fail was {last}"))
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
