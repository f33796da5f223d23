//! Carrying out what the flight recorder found, in the database of the job.

use std::sync::atomic::Ordering;

use pushy_core::job_state::JobState;
use pushy_core::suspicion;

use crate::errors::{Error, Result, SqlState};
use crate::job::live;
use crate::job::live::Live;
use crate::job::moves::give_back::{self, MAX_GIVE_BACKS};
use crate::job::moves::hold;
use crate::job::moves::retry_or_discard::{self, Attempt};
use crate::pg::{clock, identity, transaction};
use crate::queue::{cache, definition};
use crate::shared;
use crate::shared::cancels::Asked;
use crate::worker::recorder::{CrashVerdict, Recorder, VerdictKind};

/// How long batches stay of one job after a batch could not be committed.
pub const SINGLE_US: i64 = 60_000_000;

/// Carries out all verdicts of this database, in one transaction unless somebody holds a row that one of them needs.
/// False when some still wait for their job's row. (An executor that finds such a job wakes the scheduler when it lets go
/// of the row; a session does not.)
pub fn apply_all(recorder: &Recorder, database: u32) -> Result<bool> {
    let verdicts = recorder.verdicts(database);
    if verdicts.is_empty() {
        return Ok(true);
    }
    let carried_out = transaction::run_each(&verdicts, |verdict| {
        // Durably: a job that crashes the server each time at once would else take each charge with it.
        transaction::commit_durably();
        identity::as_owner(|| apply(verdict))
    })?;
    let carried_out: Vec<bool> = carried_out
        .into_iter()
        .map(|done| done == Some(true))
        .collect();
    for (verdict, done) in verdicts.iter().zip(&carried_out) {
        if *done {
            recorder.remove(verdict);
        } else {
            recorder.wait(verdict);
        }
    }
    shared::expect().wake_executors();
    Ok(!carried_out.contains(&false))
}

/// Carries out a verdict; false when somebody holds the job's row. It waits then, and so does the job.
fn apply(verdict: &CrashVerdict) -> Result<bool> {
    let Some(queue) = definition::find_by_id(verdict.queue_id)? else {
        return Ok(true);
    };
    let slot = cache::slot_of(&queue);
    if verdict.kind == VerdictKind::RunSingle {
        if let Some(slot) = slot {
            let until = clock::now().plus_us(SINGLE_US).0;
            let cell = &shared::expect().queues()[slot].single_until;
            cell.store(until, Ordering::SeqCst);
        }
        return Ok(true);
    }
    // Its transaction may have committed before the end came, or a session may have run it since: then
    // the row is gone, or its attempt another.
    let Some(found) = live::lock_if_free(verdict.job)? else {
        let held = live::get(verdict.job)?;
        return Ok(held.is_none_or(|held| held.job.attempt != verdict.attempt));
    };
    let Live { state, job, .. } = hold::put_back(shared::expect(), found)?;
    // Or somebody has claimed the job since, whose claim it is to end: a worker outside, or another executor's procedure.
    if job.attempt != verdict.attempt || state == JobState::Running {
        return Ok(true);
    }
    // A cancel that was promised for the job is carried out instead, once it is committed.
    match shared::expect().cancels.asked(verdict.database, job.id) {
        Some(Asked::Committed) => return Ok(true),
        Some(Asked::Open) => return Ok(false),
        None => {}
    }
    match verdict.kind {
        VerdictKind::Quarantine if job.suspicions < suspicion::MOST => {
            give_back::suspect(&queue, slot, state, &job)?;
        }
        VerdictKind::Terminated if job.give_backs < MAX_GIVE_BACKS => {
            give_back::give_back(&queue, slot, state, &job)?;
        }
        kind => {
            let failed = Attempt {
                started_at: Some(verdict.started_at),
                ended_at: clock::now(),
                error: &reason(kind),
                next: None,
            };
            retry_or_discard::fail(&queue, slot, state, &job, &failed)?;
        }
    }
    Ok(true)
}

fn reason(kind: VerdictKind) -> Error {
    let (sqlstate, message, hint) = match kind {
        VerdictKind::EndedSession => (
            SqlState::ADMIN_SHUTDOWN,
            "the handler ended its own session",
            "A handler must not terminate the backend it runs in.",
        ),
        VerdictKind::Overran => (
            SqlState::QUERY_CANCELED,
            "the job did not stop when told, and its executor was ended",
            "It was interrupted again and again for 5 s after its timeout. A handler that catches query_canceled, or every error, raises it again.",
        ),
        VerdictKind::Terminated => (
            SqlState::ADMIN_SHUTDOWN,
            "the executor was terminated each time it ran this job",
            "pg_cancel_backend() or pushy.job_cancel() stop a job without its executor.",
        ),
        _ => (
            SqlState::CRASH_SHUTDOWN,
            "the server crashed while this job ran",
            "Look into the server's log for the signal that ended the process.",
        ),
    };
    Error::new(sqlstate, message).hint(hint)
}
