//! Cancelling a job: before it runs, in the caller's transaction; while it runs, at the caller's commit.

use pushy_core::job_state::JobState;

use super::live::{Live, Whereabouts};
use super::moves::cancel::{ask, cancel_free};
use super::work_right::{queue_for_work, require_seen};
use super::{current, live, promise};
use crate::errors::{Error, Result, SqlState};
use crate::pg::{database, identifier, identity, interrupts, transaction, Oid};
use crate::queue::control_channel;
use crate::queue::definition::QueueDefinition;
use crate::shared::cancels::CELLS;
use crate::shared::executor;
use crate::shared::executor_batch::HoldState;
use crate::shared::{self, pending};
use crate::sql_function;

/// True when the job will end as cancelled, unless the caller's transaction is rolled back; false when the job is finished, or
/// is itself the caller.
fn cancel(id: i64) -> Result<bool> {
    let seen = match identity::as_owner(|| live::find_anywhere(id))? {
        None => return require_seen(id).map(|()| answer_finished()),
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
        control_channel::publish_of_job(control_channel::Of::Cancel, &queue, id)?;
    }
    Ok(cancelled || answer_finished())
}

/// The answer that a job is finished. Flushed first, because a crash would take back a completion that is not on disk.
fn answer_finished() -> bool {
    transaction::flush_commits();
    false
}

fn cancel_live(queue: &QueueDefinition, seen: &Live, caller: Oid) -> Result<bool> {
    let id = seen.job.id;
    if has_begun_here(id) {
        return Ok(false);
    }
    let mut promise = None;
    loop {
        match (hold_state(id), promise) {
            (Some(HoldState::Undecided), Some(_)) => {
                promise::write(&seen.job, queue.queue_id);
                return Ok(true);
            }
            (Some(HoldState::Undecided), None) if pending::has_asked(id) => return Ok(true),
            (Some(HoldState::Undecided), None) => {
                // And look again, because the outcome may have been accepted meanwhile.
                promise = Some(ask(seen, caller).ok_or_else(|| no_place(id, caller))?);
                continue;
            }
            (_, Some(asked)) => {
                pending::take_back(asked);
                promise = None;
            }
            (_, None) => {}
        }
        if let Some(free) = live::lock_if_free(id)? {
            if is_held_without_lock(&free) {
                continue;
            }
            cancel_free(queue, &free)?;
            return Ok(true);
        }
        // An executor in the middle of a claim publishes in a moment which jobs it has.
        if is_being_claimed() || hold_state(id) == Some(HoldState::Undecided) {
            std::thread::yield_now();
            interrupts::check();
            continue;
        }
        // The job's batch is about to commit, or a session changes the row just now, or the job has finished since the look:
        // wait for the row's lock.
        let Some(free) = live::lock(id)? else {
            return Ok(false);
        };
        if is_held_without_lock(&free) {
            continue;
        }
        cancel_free(queue, &free)?;
        return Ok(true);
    }
}

/// Whether an executor runs this job, whose row the caller has locked, in transactions of its own: it is asked to cancel it, and
/// cannot accept an outcome before the caller's end.
fn is_held_without_lock(free: &Live) -> bool {
    free.state == JobState::Running && hold_state(free.job.id) == Some(HoldState::Undecided)
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
        "A role may have one for four that are free, of {CELLS} in the cluster."
    ))
    .hint("Commit the transactions that cancel jobs, and try again.")
}

/// Whether an executor holds the job, and has accepted its outcome.
fn hold_state(id: i64) -> Option<HoldState> {
    shared::get()?.hold_state(database::current(), id)
}

/// Whether this very session runs the job, or has run it in its open batch: then the job ends with this transaction.
fn has_begun_here(id: i64) -> bool {
    let in_batch = || {
        let me = executor::mine()?;
        shared::get()?.executors[me].hold_state(id)
    };
    current::id() == Some(id) || in_batch() == Some(HoldState::Accepted)
}

/// Whether an executor has locked jobs, this one perhaps, and not published yet which. Ask before `standing`.
fn is_being_claimed() -> bool {
    shared::get().is_some_and(|shared| shared.is_claiming(database::current()))
}

sql_function!(pushy_job_cancel_v1, |call| {
    transaction::require_writable(c"pushy.job_cancel()");
    cancel(call.i64("job_id", 0)?)
});
