//! Cancelling a job: before it runs, in the caller's transaction; while it runs, at the caller's commit.

use pushy_core::state::{JobEvent, JobState};

use super::live::{Live, Whereabouts};
use super::{current, finish, live};
use crate::errors::{Error, Result, SqlState};
use crate::pg::{clock, database, identifier, identity, interrupts, transaction, Oid};
use crate::queue::definition::Definition;
use crate::queue::privilege::{self, Privilege};
use crate::queue::{cache, control, definition};
use crate::shared::cancels::{Promise, PLACES};
use crate::shared::executor::{self, Standing};
use crate::shared::statistics::Tally;
use crate::shared::{self, pending};
use crate::sql_function;

/// The queue of a job, the caller having `work` on it; who has nothing there does not learn that there is such a job. A job of a dropped queue is its owner's no more:
/// nobody may touch it but the scheduler.
pub fn queue_for_work(job: i64, queue_id: i32) -> Result<Definition> {
    let caller = identity::current_user();
    let (queue, grants) = identity::as_owner(|| {
        let queue = definition::find_by_id(queue_id)?.ok_or_else(|| Error::no_such_job(job))?;
        let grants = privilege::grants(queue_id)?;
        Ok((queue, grants))
    })?;
    privilege::require_for_job(job, &queue, &grants, caller, Privilege::Work)?;
    Ok(queue)
}

/// True when the job will end as cancelled, unless the caller's transaction is rolled back; false when it is finished, or
/// is the one that calls.
fn cancel(id: i64) -> Result<bool> {
    let seen = match identity::as_owner(|| live::find_anywhere(id))? {
        None => return Err(Error::no_such_job(id)),
        Some(Whereabouts::Live(live)) => live,
        Some(Whereabouts::Finished(finished)) => {
            queue_for_work(id, finished.queue_id)?;
            return Ok(answer_finished());
        }
    };
    let queue = queue_for_work(id, seen.queue_id)?;
    let caller = identity::current_user();
    let cancelled = identity::as_owner(|| cancel_live(&queue, &seen, caller))?;
    if cancelled {
        control::tell(control::Event::Cancel, &queue.name, Some(id));
    }
    Ok(cancelled || answer_finished())
}

/// The answer that a job is finished: a crash takes back the completion that it is about, unless that is on disk.
fn answer_finished() -> bool {
    transaction::flush_commits();
    false
}

fn cancel_live(queue: &Definition, seen: &Live, caller: Oid) -> Result<bool> {
    let id = seen.job.id;
    if has_begun_here(id) {
        return Ok(false);
    }
    let mut promise = None;
    loop {
        match (standing(id), promise) {
            (Some(Standing::Undecided), Some(_)) => return Ok(true),
            (Some(Standing::Undecided), None) if pending::has_asked(id) => return Ok(true),
            (Some(Standing::Undecided), None) => {
                // And look again, for it may have been accepted meanwhile.
                promise = Some(ask(seen, caller)?);
                continue;
            }
            (_, Some(asked)) => {
                pending::take_back(asked);
                promise = None;
            }
            (_, None) => {}
        }
        if let Some(free) = live::lock_if_free(id)? {
            end(queue, &free)?;
            return Ok(true);
        }
        // Whoever claims says in a moment what it has.
        if is_being_claimed() || standing(id) == Some(Standing::Undecided) {
            std::thread::yield_now();
            interrupts::check();
            continue;
        }
        // Its batch is about to commit, or a session changes it just now, or it has finished since we looked: the outcome
        // tells.
        let Some(free) = live::lock(id)? else {
            return Ok(false);
        };
        end(queue, &free)?;
        return Ok(true);
    }
}

/// Asks for the cancel of a job that is held, promised at the caller's commit wherever it is then. However that ends the
/// job is announced: who finds it asked for leaves it alone.
fn ask(seen: &Live, caller: Oid) -> Result<Promise> {
    let id = seen.job.id;
    live::announce_at_end(seen);
    pending::promises_cancels();
    pending::ask_cancel(caller, database::current(), id).ok_or_else(|| no_place(id, caller))
}

#[cold]
fn no_place(id: i64, caller: Oid) -> Error {
    let cancels = &shared::expect().cancels;
    Error::new(
        SqlState::CONFIGURATION_LIMIT_EXCEEDED,
        format!(
            "job {id} cannot be cancelled while it is held: role {} has asked for {} cancels that are not carried out, and only {} places are free",
            identifier::quoted(&identity::role_name(caller)),
            cancels.count_of(caller.to_u32()),
            cancels.count_free()
        ),
    )
    .detail(format!(
        "A role may have one for four that are free, of {PLACES} in the cluster."
    ))
    .hint("Commit the transactions that cancel jobs, and try again.")
}

/// How the executor that holds the job stands to it.
fn standing(id: i64) -> Option<Standing> {
    shared::get()?.standing(database::current(), id)
}

/// Whether this very session runs the job, or has in the batch that is open: it ends with this transaction.
fn has_begun_here(id: i64) -> bool {
    let in_batch = || {
        let me = executor::mine()?;
        shared::get()?.executors[me].standing(id)
    };
    current::id() == Some(id) || in_batch() == Some(Standing::Accepted)
}

/// Whether an executor has locked jobs, this one perhaps, and not said yet which. Asked before `standing`.
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
        pending::count(slot, queue.key(), &cancelled);
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

sql_function!(pushy_job_cancel, |call| {
    transaction::require_writable(c"pushy.job_cancel()");
    cancel(call.i64("id", 0)?)
});
