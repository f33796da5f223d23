//! Leases that are over: the scheduler charges the attempt, and the job comes back.

use pushy_core::job_state::JobState;

use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job::{self, Lease};
use crate::job::live;
use crate::job::moves::give_back::MAX_GIVE_BACKS;
use crate::job::moves::lease;
use crate::job::moves::retry_or_discard::Attempt;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::value::Timestamp;
use crate::pg::{array, clock, BuiltinOid};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared;

/// Why an attempt is charged that nobody has said to have failed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its time was over.
    Expired,
    /// The session ended that it was bound to.
    SessionEnded,
    /// Its worker has asked for it again and again, and may die of it.
    AskedAgain,
}

impl Why {
    fn hint(self) -> &'static str {
        match self {
            Why::Expired | Why::AskedAgain => "Let workers extend their leases with pushy.job_extend while they work, or give the queue a longer lease.",
            Why::SessionEnded => "Let workers release what they hold before they leave, or claim for a time instead of lease => '0'.",
        }
    }
}

// Of a queue that is not here, the sweep of orphans ends them, or who has loaded them. In the order of the index.
static OVER: Plan = Plan::new(
    "SELECT l.until, l.job_id FROM pushy_internal.lease l \
      WHERE ROW(l.until, l.job_id) OPERATOR(pg_catalog.>) ROW($1, $2) AND l.until OPERATOR(pg_catalog.<=) $3 \
        AND EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) l.queue_id) \
      ORDER BY l.until, l.job_id LIMIT $4",
    &[
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
    ],
);

/// Up to `most` leases that are over at `now`, behind that one: when they ended, and of which jobs. As the extension's owner.
pub fn over(after: (Timestamp, i64), now: Timestamp, most: usize) -> Vec<(Timestamp, i64)> {
    spi::connect(|spi| {
        let found = spi.run(&OVER, params![after.0, after.1, now, most as i64]);
        let places = found.rows().map(|row| (row.timestamp(1), row.i64(2)));
        places.collect()
    })
}

/// Ends the lease of a job if it is over at `now`; false when somebody holds the job. As the extension's owner.
pub fn end(id: i64, now: Timestamp) -> Result<bool> {
    let Some(live) = live::lock_if_free(id)? else {
        return is_gone(id);
    };
    // Again, now that the row is locked: it may have been extended.
    let Some(lease) = leased_job::lease_of(id)?.filter(|lease| lease.until <= now) else {
        return Ok(true);
    };
    // An orphan, which the sweep of those ends; or not at home here yet: then all are looked at.
    let queue = definition::find_by_id(live.queue_id)?;
    if let Some(queue) = queue.filter(QueueDefinition::is_home) {
        let slot = cache::slot_of(&queue);
        if live.state != JobState::Running {
            return lease::end_of_nobody(&queue, id).map(|()| true);
        }
        charge(&queue, slot, &live.job, &lease, Why::Expired)?;
    }
    Ok(true)
}

/// Of a job that could not be locked: it is not there, or somebody holds it.
fn is_gone(id: i64) -> Result<bool> {
    Ok(live::get(id)?.is_none())
}

// For the most part of sessions that have ended; whether they have is asked of each once more.
static OF_OTHERS: Plan = Plan::new(
    "SELECT l.session, l.job_id FROM pushy_internal.lease l \
      WHERE l.session IS NOT NULL AND l.session OPERATOR(pg_catalog.<>) ALL ($1) \
        AND ROW(l.session, l.job_id) OPERATOR(pg_catalog.>) ROW($2, $3) ORDER BY l.session, l.job_id LIMIT $4",
    &[
        BuiltinOid::INT8ARRAYOID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
        BuiltinOid::INT8OID,
    ],
);

/// Up to `most` leases of sessions that may have ended, behind that one: the sessions, and of which jobs. As the extension's owner.
pub fn of_other_sessions(after: (i64, i64), most: usize) -> Vec<(i64, i64)> {
    let go_on = array::of_int8s(&shared::expect().sessions_now());
    spi::connect(|spi| {
        let found = spi.run(&OF_OTHERS, params![go_on, after.0, after.1, most as i64]);
        found.rows().map(|row| (row.i64(1), row.i64(2))).collect()
    })
}

/// Ends a job's lease of a session that has ended; false when somebody holds the job. As the extension's owner.
pub fn end_of_session(session: i64, id: i64) -> Result<bool> {
    let shared = shared::expect();
    // After its number was read: it was entered before that was committed.
    if shared.is_session(session) {
        return Ok(true);
    }
    let Some(live) = live::lock_if_free(id)? else {
        return is_gone(id);
    };
    let Some(lease) = leased_job::lease_of(id)?.filter(|lease| lease.session == Some(session))
    else {
        return Ok(true);
    };
    let queue = definition::find_by_id(live.queue_id)?;
    let Some(queue) = queue.filter(QueueDefinition::is_home) else {
        return Ok(true);
    };
    if live.state != JobState::Running {
        return lease::end_of_nobody(&queue, id).map(|()| true);
    }
    let (slot, job) = (cache::slot_of(&queue), &live.job);
    if shared.is_of_this_life(session) || job.give_backs >= MAX_GIVE_BACKS {
        charge(&queue, slot, job, &lease, Why::SessionEnded)?;
    } else {
        // The server ended it, by its own end.
        lease::give_back(&queue, slot, job, lease.position)?;
    }
    Ok(true)
}

static LATER: Plan = Plan::new(
    "SELECT l.job_id FROM pushy_internal.lease l \
      WHERE l.job_id OPERATOR(pg_catalog.>) $1 AND l.said_at OPERATOR(pg_catalog.>) $2 ORDER BY l.job_id LIMIT $3",
    &[
        BuiltinOid::INT8OID,
        BuiltinOid::TIMESTAMPTZOID,
        BuiltinOid::INT8OID,
    ],
);

/// Up to `most` jobs, behind that one, with a lease that was claimed or extended later than `now`: the clock was set back. As the extension's
/// owner.
pub fn later(after: i64, now: Timestamp, most: usize) -> Vec<i64> {
    spi::connect(|spi| {
        let found = spi.run(&LATER, params![after, now, most as i64]);
        found.rows().map(|row| row.i64(1)).collect()
    })
}

static FROM_NOW: Plan = Plan::new(
    "UPDATE pushy_internal.lease SET leased_at = LEAST(leased_at, $2), said_at = $2, \
            until = CASE WHEN until OPERATOR(pg_catalog.<) 'infinity'::pg_catalog.timestamptz \
                         THEN $2 OPERATOR(pg_catalog.+) (until OPERATOR(pg_catalog.-) said_at) ELSE until END \
      WHERE job_id OPERATOR(pg_catalog.=) $1 AND said_at OPERATOR(pg_catalog.>) $2",
    &[BuiltinOid::INT8OID, BuiltinOid::TIMESTAMPTZOID],
);

/// Has a lease that was claimed or extended later than `now` hold from then on, as long as it was said to; false when somebody holds the job.
/// As the extension's owner.
pub fn set_back(id: i64, now: Timestamp) -> Result<bool> {
    if live::lock_if_free(id)?.is_none() {
        return is_gone(id);
    }
    spi::run(&FROM_NOW, params![id, now]);
    Ok(true)
}

static NEXT: Plan = Plan::new(
    "SELECT l.until FROM pushy_internal.lease l WHERE l.until OPERATOR(pg_catalog.>) $1 \
        AND l.until OPERATOR(pg_catalog.<) 'infinity'::pg_catalog.timestamptz \
        AND EXISTS (SELECT FROM pushy_internal.queue q WHERE q.queue_id OPERATOR(pg_catalog.=) l.queue_id) ORDER BY l.until LIMIT 1",
    &[BuiltinOid::TIMESTAMPTZOID],
);

/// When the first lease ends that ends after `now`. As the extension's owner.
pub fn next_end(now: Timestamp) -> Option<Timestamp> {
    spi::connect(|spi| {
        spi.run(&NEXT, params![now])
            .first()
            .map(|row| row.timestamp(1))
    })
}

/// Charges the attempt of a lease that nobody has answered.
pub fn charge(
    queue: &QueueDefinition,
    slot: Option<usize>,
    job: &Claimed,
    lease: &Lease,
    why: Why,
) -> Result<()> {
    let worker = match &lease.worker {
        Some(worker) => format!("worker \"{worker}\""),
        None => "a worker".to_owned(),
    };
    let message = match why {
        Why::Expired => format!("the lease of {worker} was over before it said how the job ended"),
        Why::SessionEnded => {
            format!("the session of {worker} ended before it said how the job ended")
        }
        Why::AskedAgain => {
            format!("{worker} has asked for the job again and again, and has not said how it ended")
        }
    };
    let error = Error::new(SqlState::CONNECTION_FAILURE, message).hint(why.hint());
    lease::fail(
        queue,
        slot,
        job,
        &Attempt {
            started_at: Some(lease.leased_at),
            ended_at: clock::now(),
            error: &error,
            next: None,
        },
    )?;
    Ok(())
}
