//! jobs_wait: on the condition variable of the queue that is broadcast when nothing is left.

use std::time::{Duration, Instant};

use crate::errors::{Error, Result, SqlState};
use crate::job::unfinished;
use crate::pg::function::{Answer, Call};
use crate::pg::installed::Installed;
use crate::pg::{ereport, identity, transaction};
use crate::queue::privilege::{self, Privilege};
use crate::queue::{cache, definition, explain};
use crate::shared;
use crate::{row, sql_function};

/// How long it waits where nothing is said; as sql/jobs.sql has it.
const USUAL: Duration = Duration::from_secs(3_600);

/// Raises a NOTICE for each reason that keeps the queue's jobs from running now. No ERROR, because the caller may wait for
/// somebody to remove it.
fn notice_obstacles(queue_id: i32, waits: bool) -> Result<()> {
    // Its name may be another queue's by now.
    let Some(queue) = identity::as_owner(|| definition::find_by_id(queue_id))? else {
        return Ok(());
    };
    for finding in explain::standing_findings(&queue) {
        let message = format!(
            "jobs of queue \"{}\" do not run now: {}",
            queue.name, finding.reason
        );
        let mut notice = Error::new(SqlState::SUCCESSFUL_COMPLETION, message);
        if waits {
            notice = notice.detail("The call waits for them all the same, until its timeout, because somebody may mend that.");
        }
        ereport::notice(&match finding.fix {
            Some(fix) => notice.hint(fix),
            None => notice,
        });
    }
    Ok(())
}

/// Whether nothing is left.
fn jobs_wait(call: Call) -> Result<Answer> {
    let name = call.text("queue", 0)?;
    let timeout = call.timeout("timeout", 1, USUAL)?;
    transaction::require_nonatomic(call.is_nonatomic_call(), "pushy.jobs_wait")?;
    let installed = Installed::find()?;
    let queue_id = cache::get(&name)?.definition.queue_id;
    let deadline = Instant::now() + timeout;
    let mut noticed = false;
    // Bounded: by the deadline; who sleeps looks at interrupts.
    loop {
        // Each look is a transaction of its own; between looks no snapshot is held. The queue may be called otherwise by now, be another's,
        // or be gone, and nothing of it is left then.
        transaction::commit_in_procedure()?;
        installed.require()?;
        let Some(known) = cache::get_of_many(queue_id)? else {
            return Ok(call.answer_row(row![true]));
        };
        let queue = &known.definition;
        privilege::require(
            queue,
            &known.grants,
            identity::current_user(),
            Privilege::Monitor,
        )?;
        let slot = known.slot.or_else(|| cache::slot_of(queue));
        let seen = slot.map(|slot| (slot, shared::expect().queues()[slot].drains()));
        let is_any = unfinished::is_any(queue, slot)?;
        let is_quiet = |slot: usize| shared::expect().queues()[slot].nobody_announces();
        if !is_any && slot.is_none_or(is_quiet) {
            transaction::flush_commits();
            return Ok(call.answer_row(row![true]));
        }
        if is_any && !std::mem::replace(&mut noticed, true) {
            notice_obstacles(queue.queue_id, slot.is_some())?;
        }
        transaction::commit_in_procedure()?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(call.answer_row(row![false]));
        }
        match seen {
            Some((slot, seen)) => shared::expect().queues()[slot].wait_drain(seen, left),
            // One that has got a place meanwhile is looked at again.
            None => {
                cache::slot_or_reason(queue).map_err(|why| why.error(queue))?;
            }
        }
    }
}

sql_function!(pushy_jobs_wait_v1, |call| jobs_wait(call));
