//! Leases that are over: the scheduler charges the attempt, and the job comes back.

use std::collections::HashMap;

use pushy_core::job_state::JobState;
use pushy_core::turns::{Bounds, Turns, WaitingCursor};

use crate::errors::{Error, Result, SqlState};
use crate::job::claimed::Claimed;
use crate::job::lease::leased_job::{self, Lease};
use crate::job::live;
use crate::job::moves::give_back::MAX_GIVE_BACKS;
use crate::job::moves::lease;
use crate::job::moves::retry_or_discard::Attempt;
use crate::job::tables::lease as table;
use crate::params;
use crate::pg::heap::{self, Key};
use crate::pg::spi::{self, Plan, Row};
use crate::pg::value::Timestamp;
use crate::pg::{clock, BuiltinOid};
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

/// A transaction ends few, because each that ends writes several rows.
const BOUNDS: Bounds = Bounds {
    rows: 250,
    passed: 10_000,
    share: 250,
};

/// Turns at what ends at this time (µs) or later, or with this session or a later one.
pub fn turns_from(from: i64) -> Turns {
    Turns::from(from, BOUNDS)
}

/// Leases that are over at `now` and that these turns have come to: when they ended, and of which jobs. As the extension's owner.
pub fn over(
    queues: &[QueueDefinition],
    turns: &mut Turns,
    now: Timestamp,
) -> Result<Vec<(Timestamp, i64)>> {
    let after = turns.begin();
    let from = Timestamp(after.run_at);
    let mut walk = Walk::new(queues, turns);
    if from <= now {
        let place = |row: &Row<'_>| (row.timestamp(table::UNTIL).0, true);
        let same = [Key::timestamp_equals(1, from), Key::int8_above(2, after.id)];
        walk.go_on("lease_end", &same, place)?;
        let later = [
            Key::timestamp_above(1, from),
            Key::timestamp_at_most(1, now),
        ];
        walk.go_on("lease_end", &later, place)?;
    }
    let found = walk.end().into_iter();
    Ok(found.map(|at| (Timestamp(at.run_at), at.id)).collect())
}

/// A transaction's walk in the order of an index.
struct Walk<'a> {
    queues: &'a [QueueDefinition],
    turns: &'a mut Turns,
    /// Of each queue that was met; None: what it has leased is not to be ended here.
    owners: HashMap<i32, Option<u32>>,
    found: Vec<WaitingCursor>,
    is_enough: bool,
}

impl<'a> Walk<'a> {
    fn new(queues: &'a [QueueDefinition], turns: &'a mut Turns) -> Self {
        Self {
            queues,
            turns,
            owners: HashMap::new(),
            found: Vec::new(),
            is_enough: false,
        }
    }

    /// Over leases of these keys. `place`: where one is in the order of the index, and whether it may be over.
    fn go_on(
        &mut self,
        index: &str,
        keys: &[Key],
        place: impl Fn(&Row<'_>) -> (i64, bool),
    ) -> Result<()> {
        if self.is_enough {
            return Ok(());
        }
        let shape = (table::COLUMNS, &table::CHECKED);
        heap::read_now("lease", shape, index, keys, |row, _| {
            if self.turns.has_walked_enough() {
                self.is_enough = true;
                return Ok(false);
            }
            let (run_at, may_be_over) = place(&row);
            let cursor = WaitingCursor {
                run_at,
                id: row.i64(table::JOB_ID),
            };
            let queue_id = row.i32(table::QUEUE_ID);
            let owner = if may_be_over {
                self.owner_of(queue_id)?
            } else {
                None
            };
            match owner {
                None => self.turns.pass(cursor),
                Some(owner) => {
                    if self.turns.wants(cursor, queue_id, |_| owner) {
                        self.found.push(cursor);
                    }
                }
            }
            Ok(true)
        })
    }

    /// None of a queue that is gone: the sweep of orphans ends its leases, or who has loaded them; and of one that is not at home
    /// here yet: then all are looked at.
    fn owner_of(&mut self, queue_id: i32) -> Result<Option<u32>> {
        if let Some(owner) = self.owners.get(&queue_id) {
            return Ok(*owner);
        }
        let owner_if_home = |queue: &QueueDefinition| queue.is_home().then(|| queue.owner.to_u32());
        let read = self.queues.iter().find(|queue| queue.queue_id == queue_id);
        let owner = match read {
            Some(queue) => owner_if_home(queue),
            // It may have been registered since the others were read.
            None => definition::find_by_id(queue_id)?.and_then(|queue| owner_if_home(&queue)),
        };
        self.owners.insert(queue_id, owner);
        Ok(owner)
    }

    fn end(self) -> Vec<WaitingCursor> {
        self.turns.end(self.is_enough);
        self.found
    }
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

/// Leases of sessions that may have ended and that these turns have come to: the sessions, and of which jobs; whether a session has ended is
/// asked of each once more. As the extension's owner.
pub fn of_other_sessions(queues: &[QueueDefinition], turns: &mut Turns) -> Result<Vec<(i64, i64)>> {
    let mut go_on = shared::expect().sessions_now();
    go_on.sort_unstable();
    let after = turns.begin();
    let mut walk = Walk::new(queues, turns);
    let place = |row: &Row<'_>| {
        let session = row.i64(table::SESSION);
        (session, go_on.binary_search(&session).is_err())
    };
    let same = [
        Key::int8_equals(1, after.run_at),
        Key::int8_above(2, after.id),
    ];
    walk.go_on("lease_session", &same, place)?;
    walk.go_on("lease_session", &[Key::int8_above(1, after.run_at)], place)?;
    let found = walk.end().into_iter();
    Ok(found.map(|at| (at.run_at, at.id)).collect())
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
