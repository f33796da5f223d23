//! scheduled, available, running, retryable → cancelled: in the caller's transaction where nobody holds the job, else by its
//! executor, or by whoever has its row next, once the cancel was promised.

use pushy_core::job_state::{JobEvent, JobState};

use super::rows::end_as;
use super::{lease, step};
use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::live::{self, Live};
use crate::job::promise;
use crate::pg::value::Timestamp;
use crate::pg::{clock, database, snapshot, Oid};
use crate::queue::cache;
use crate::queue::definition::{self, QueueDefinition};
use crate::shared::cancels::{Asked, Promise};
use crate::shared::statistics::QueueCounts;
use crate::shared::{self, pending};

/// Ends a job whose row this transaction has locked; counted by the commit. `from`: its state, running while its claim is this
/// transaction's. `started_at`: when its handler began, if it did.
pub fn cancel(
    queue: &QueueDefinition,
    slot: Option<usize>,
    from: JobState,
    job: &Claimed,
    started_at: Option<Timestamp>,
) -> Result<()> {
    let state = step(job.id, from, JobEvent::Cancel)?;
    end_as(queue, job.id, state, job.attempt, started_at, clock::now())?;
    if let Some(slot) = slot {
        let cancelled = QueueCounts {
            cancelled: 1,
            ..QueueCounts::default()
        };
        pending::count(slot, queue.key(), &cancelled);
    }
    Ok(())
}

/// The same for a job that no executor holds.
pub fn cancel_free(queue: &QueueDefinition, free: &Live) -> Result<()> {
    lease::end_with(queue, free.job.id, free.state)?;
    cancel(queue, cache::slot_of(queue), free.state, &free.job, None)
}

/// Requests the cancel of a job that an executor holds; the caller's commit makes it a promise. Commit or rollback, the
/// caller's end announces the job, because an executor that finds the request leaves it alone. None when the caller has asked for
/// too many.
pub fn ask(seen: &Live, caller: Oid) -> Option<Promise> {
    live::announce_at_end(seen);
    pending::ask_cancel(caller, database::current(), seen.job.id)
}

/// Carries out a cancel that has been promised; false, without a wait, when somebody holds the job. `started_at`: when its
/// handler began, as far as the caller knows. As the extension's owner.
pub fn cancel_promised(id: i64, started_at: Option<Timestamp>) -> Result<bool> {
    // What is promised from now on is of the job's next life.
    let then = snapshot::take_latest();
    if let Some(seen) = live::get(id)? {
        if let Some(queue) = definition::find_by_id(seen.queue_id)? {
            let Some(free) = live::lock_if_free(id)? else {
                return Ok(false);
            };
            if promise::forget(id)? {
                let slot = cache::slot_of(&queue);
                lease::end_with(&queue, id, free.state)?;
                cancel(&queue, slot, free.state, &free.job, started_at)?;
            } else {
                // Somebody else has, and the job was made to run again since; who met the request has left it alone.
                live::announce_at_end(&free);
            }
            return Ok(true);
        }
    }
    promise::forget_as_of(id, &then)?;
    Ok(true)
}

/// Before a transaction is prepared: cancels the jobs itself that executors were to cancel at its commit, because nobody
/// can say when that comes. Waits for whoever holds them, who is interrupted and leaves them as they are.
pub fn cancel_to_prepare(promise: Promise) -> Result<()> {
    if let Some(held) = live::get(promise.job)? {
        let Some(queue) = definition::find_by_id(held.queue_id)? else {
            // This transaction drops the queue, and what is left of its jobs has an end of its own.
            return Ok(());
        };
        pending::interrupt(shared::expect(), database::current(), promise.job);
        if let Some(free) = live::lock(promise.job)? {
            cancel_free(&queue, &free)?;
        }
    }
    promise::forget(promise.job)?;
    pending::take_back(promise);
    Ok(())
}

/// Cancels a job whose row this transaction has locked and whose cancel was promised; true when there is one, or may be:
/// it is not to be run.
pub fn is_cancelled_instead(queue: &QueueDefinition, id: i64) -> Result<bool> {
    let asked = shared::get().and_then(|shared| shared.cancels.asked(database::current(), id));
    if asked == Some(Asked::Committed) {
        if let Some(mine) = live::lock(id)? {
            if !promise::forget(id)? {
                // What is committed was carried out before; somebody may ask anew, whose request is not committed.
                return Ok(shared::expect().cancels.is_open(database::current(), id));
            }
            cancel_free(queue, &mine)?;
        }
    }
    Ok(asked.is_some())
}
