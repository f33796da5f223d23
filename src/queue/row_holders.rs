//! Who keeps jobs locked that are ready or due, so that executors and the scheduler pass over them: for queue_explain.

use super::definition::QueueDefinition;
use crate::errors::{quote_literal, Result};
use crate::obstacle::{blocked, said, Finding};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::BuiltinOid;
use crate::shared::{self, executor::ExecutorState};

use std::sync::atomic::Ordering;

// A transaction holds a lock on its own number; one that is prepared does so in no process. Rows that several share are left
// out: their xmax is the number of a group.
static HOLDERS: Plan = Plan::new(
    "SELECT l.pid, x.gid, pg_catalog.count(*), pg_catalog.bool_and(j.state OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\") \
       FROM (SELECT j.xmax, j.state FROM pushy_internal.live_job j \
              WHERE j.queue_id OPERATOR(pg_catalog.=) $1 \
                AND (j.state OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\" OR j.run_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()) \
              LIMIT 10000) j \
       JOIN pg_catalog.pg_locks l ON l.transactionid OPERATOR(pg_catalog.=) j.xmax \
        AND l.locktype OPERATOR(pg_catalog.=) 'transactionid'::pg_catalog.text AND l.mode OPERATOR(pg_catalog.=) 'ExclusiveLock'::pg_catalog.text \
       LEFT JOIN pg_catalog.pg_prepared_xacts x ON x.transaction OPERATOR(pg_catalog.=) j.xmax \
      GROUP BY l.pid, x.gid ORDER BY 3 DESC",
    &[BuiltinOid::INT4OID],
);

static BLOCKERS: Plan = Plan::new(
    "SELECT DISTINCT b.pid FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) b(pid) ORDER BY 1",
    &[BuiltinOid::INT4OID],
);

/// Whose locks a process waits for, in words: who holds them. None where it waits for none. As the extension's owner.
pub fn blockers(pid: i32) -> Option<String> {
    let blockers: Vec<String> = spi::connect(|spi| {
        let found = spi.run(&BLOCKERS, params![pid]);
        let named = |row: spi::Row<'_>| match row.i32(1) {
            // As pg_blocking_pids says it.
            0 => "a prepared transaction".to_owned(),
            pid => format!("process {pid}"),
        };
        found.rows().map(named).collect()
    });
    let hold = if blockers.len() == 1 { "holds" } else { "hold" };
    (!blockers.is_empty()).then(|| format!("{} {hold}", blockers.join(" and ")))
}

/// What others hold, in words, and how many ready jobs are among that.
pub struct Held {
    pub findings: Vec<Finding>,
    pub ready: i64,
}

/// Transactions other than executors' that hold ready or due jobs of the queue; as the extension's owner.
pub fn find(queue: &QueueDefinition) -> Result<Held> {
    let is_executor = |pid: i32| {
        shared::get().is_some_and(|shared| {
            let mut executors = shared.executors.iter();
            executors.any(|executor| {
                executor.state() != ExecutorState::Free
                    && executor.pid.load(Ordering::SeqCst) == pid
            })
        })
    };
    spi::connect(|spi| {
        let holders = spi.run(&HOLDERS, params![queue.queue_id]);
        let mut held = Held {
            findings: Vec::new(),
            ready: 0,
        };
        let findings = &mut held.findings;
        for row in holders.rows() {
            let count = row.i64(3);
            let kind = if row.bool(4) { "ready" } else { "due" };
            let jobs = match count {
                1 => format!("1 {kind} job is"),
                _ => format!("{count} {kind} jobs are"),
            };
            let run = match (queue.is_outside(), count) {
                (true, _) => "can be claimed when it",
                (false, 1) => "runs when it",
                (false, _) => "run when it",
            };
            if row.bool(4) {
                held.ready += count;
            }
            match (row.opt_i32(1), row.opt_text(2)?) {
                (_, Some(gid)) => {
                    let gid = quote_literal(&gid);
                    findings.push(blocked(
                        format!("{jobs} locked by prepared transaction {gid}, and {run} has ended"),
                        format!("Run COMMIT PREPARED {gid}, or ROLLBACK PREPARED {gid}"),
                    ));
                }
                (Some(pid), None) if !is_executor(pid) => {
                    let transaction = if queue.is_outside() {
                        // What a driver does that opens transactions by itself.
                        "the open transaction, of a claim for example,"
                    } else {
                        "the transaction"
                    };
                    findings.push(said(format!(
                        "{jobs} locked by {transaction} of process {pid}, and {run} has ended"
                    )));
                }
                _ => {}
            }
        }
        Ok(held)
    })
}
