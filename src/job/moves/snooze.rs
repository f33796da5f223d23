//! running → scheduled, and on to available where it is due at once: the handler has put its job off, and what it did is kept.

use crate::pg::BuiltinOid;
use pushy_core::job_state::{JobEvent, JobState};

use super::rows::{announce_ready, Stored};
use super::step;
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::{live, position};
use crate::params;
use crate::pg::clock;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::queue::definition::QueueDefinition;
use crate::shared::pending;
use crate::shared::statistics::QueueCounts;

static SNOOZE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job \
        SET state = $2, position = $3, run_at = $4, leased = NULL, give_backs = 0, suspicions = 0, \
            snoozes = COALESCE(snoozes, 0) OPERATOR(pg_catalog.+) 1 \
      WHERE ctid OPERATOR(pg_catalog.=) $1",
    &[
        BuiltinOid::TIDOID,
        BuiltinOid::CHAROID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
    ],
);

/// Puts a job off until `due`, uncharged; counted at commit. Its row is held by this transaction. As the extension's owner.
pub fn snooze(
    queue: &QueueDefinition,
    slot: Option<usize>,
    from: JobState,
    job: &Claimed,
    due: Timestamp,
) -> Result<()> {
    let waits = step(job.id, from, JobEvent::Snooze)?;
    let stored = if due <= clock::now() {
        let state = step(job.id, waits, JobEvent::Due)?;
        // Behind those that are ready, which it has let pass.
        Stored::of(state, position::next()?)
    } else {
        Stored::of(waits, 0)
    };
    spi::run(
        &SNOOZE,
        params![live::place(job.id)?, stored.state, stored.position, due],
    );
    if let Some(slot) = slot {
        let tally = QueueCounts {
            snoozed: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &tally);
    }
    match stored.position {
        Some(position) => announce_ready(queue.key(), slot, job.priority, position),
        None => pending::waiting_from(due.0),
    }
    Ok(())
}

static NOTE: Plan = Plan::new(
    "UPDATE pushy_internal.live_job SET snoozes = 0 WHERE ctid OPERATOR(pg_catalog.=) $1 AND snoozes IS NULL",
    &[BuiltinOid::TIDOID],
);

/// Notes that something is kept of a job that stays where it is, whose row this transaction holds: it goes with the job then.
pub fn note(job: i64) -> Result<()> {
    spi::run(&NOTE, params![live::place(job)?]);
    Ok(())
}
