//! Cancelling a job: before it runs, in the caller's transaction; while it runs, at the caller's commit.

use pushy_core::state::{JobEvent, JobState};

use super::live::Live;
use super::{current, finish, live};
use crate::errors::{Error, Result, SqlState};
use crate::pg::{clock, database, identity, interrupts};
use crate::queue::definition::Definition;
use crate::queue::privilege::{self, Privilege};
use crate::queue::{cache, control, definition};
use crate::shared::cancels::PLACES;
use crate::shared::statistics::Tally;
use crate::shared::{self, pending};
use crate::sql_function;

/// The queue of a job, the caller having `work` on it. A job of a dropped queue is its owner's no more:
/// nobody may touch it but the scheduler.
pub fn queue_for_work(job: i64, queue_id: i32) -> Result<Definition> {
    let caller = identity::current_user();
    let (queue, grants) = identity::as_owner(|| {
        let queue = definition::find_by_id(queue_id)?.ok_or_else(|| Error::no_such_job(job))?;
        let grants = privilege::grants(queue_id)?;
        Ok((queue, grants))
    })?;
    privilege::require(&queue, &grants, caller, Privilege::Work)?;
    Ok(queue)
}

/// True when the job will not run to its end any more; false when it is finished already.
fn cancel(id: i64) -> Result<bool> {
    let seen = identity::as_owner(|| live::look(id))?;
    let Some(seen) = seen else {
        let finished = identity::as_owner(|| live::finished(id))?;
        let finished = finished.ok_or_else(|| Error::no_such_job(id))?;
        queue_for_work(id, finished.queue_id)?;
        return Ok(false);
    };
    let queue = queue_for_work(id, seen.queue_id)?;
    let cancelled = identity::as_owner(|| cancel_live(&queue, id))?;
    if cancelled {
        control::tell(control::Event::Cancel, &queue.name, Some(id));
    }
    Ok(cancelled)
}

fn cancel_live(queue: &Definition, id: i64) -> Result<bool> {
    let mut locked = false;
    loop {
        // First those that hold it: our own locks would not stop us below.
        if !locked && is_held(id) {
            promise(id)?;
            return Ok(true);
        }
        if let Some(free) = live::lock_if_free(id)? {
            end(queue, &free)?;
            return Ok(true);
        }
        if !locked && (is_being_claimed() || is_held(id)) {
            promise(id)?;
            return Ok(true);
        }
        // Locked by a session that changes it just now, or finished since we looked: wait for that
        // session and look again. An executor clears its batch a moment after its locks are gone, so a
        // row that is ours is nobody's batch any more.
        if live::lock(id)?.is_none() {
            return Ok(false);
        }
        locked = true;
        interrupts::check();
    }
}

/// Cancels a job that is held at the caller's commit, wherever it is then.
fn promise(id: i64) -> Result<()> {
    if pending::cancel(id) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!("job {id} cannot be cancelled while it is held: {PLACES} cancels wait for the commit of those who asked for them"),
    )
    .hint("Commit the transactions that cancel jobs, and try again."))
}

/// Whether an executor has the job in its batch, or this session runs it.
fn is_held(id: i64) -> bool {
    current::id() == Some(id)
        || shared::get()
            .is_some_and(|shared| shared.executor_holding(database::current(), id).is_some())
}

/// Whether an executor has locked jobs, this one perhaps, and not said yet which. Asked before `is_held`.
fn is_being_claimed() -> bool {
    shared::get().is_some_and(|shared| shared.is_claiming(database::current()))
}

/// Ends a job whose row this transaction has locked.
fn end(queue: &Definition, free: &Live) -> Result<()> {
    let cancelled = free.state.next(JobEvent::Cancel);
    assert_eq!(cancelled, Some(JobState::Cancelled));
    let (id, attempt) = (free.job.id, free.job.attempt);
    finish::end_as(queue, id, JobState::Cancelled, attempt, None, clock::now())?;
    if let Some(slot) = cache::slot_of(queue)? {
        let cancelled = Tally {
            cancelled: 1,
            ..Tally::default()
        };
        pending::ended(slot, cancelled);
    }
    Ok(())
}

/// Carries out a cancel that has been promised, if nobody holds the job; false when somebody does, for nobody is waited
/// for. As the extension's owner.
pub fn carry_out(id: i64) -> Result<bool> {
    let Some(seen) = live::look(id)? else {
        return Ok(true);
    };
    let Some(queue) = definition::find_by_id(seen.queue_id)? else {
        return Ok(true);
    };
    let free = live::lock_if_free(id)?;
    if let Some(free) = &free {
        end(&queue, free)?;
    }
    Ok(free.is_some())
}

sql_function!(pushy_job_cancel, |call| cancel(call.i64("id", 0)?));
