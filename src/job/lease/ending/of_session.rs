//! Leases that are bound to a session, and end with it.

use pushy_core::job_state::JobState;
use pushy_core::turns::Turns;

use super::charge::{charge, Why};
use super::walk::{is_gone, Walk};
use crate::errors::Result;
use crate::job::lease::leased_job;
use crate::job::live;
use crate::job::moves::give_back::MAX_GIVE_BACKS;
use crate::job::moves::lease;
use crate::job::tables::lease as table;
use crate::pg::heap::Key;
use crate::pg::spi::Row;
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared;

/// Leases of sessions that may have ended and that these turns have come to: the sessions, and of which jobs; whether a session has ended is
/// asked of each once more. As the extension's owner.
pub fn of_others(queues: &[QueueDefinition], turns: &mut Turns) -> Result<Vec<(i64, i64)>> {
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
pub fn end(session: i64, id: i64) -> Result<bool> {
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
        lease::give_back(&queue, slot, job, &lease)?;
    }
    Ok(true)
}
