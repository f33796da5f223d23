//! queue_run: runs what is due of a queue in the caller's session and transaction, for tests.
//!
//! It does not ask the gate (`pushy_core::gate`): a paused or parked queue, a setting that stops workers, a wait for the server or
//! a quarantine keep executors from a queue, and not who runs its jobs by hand. It asks for the queue's home, its role, its handler and a permit.

mod refusals;
mod session_run;

use refusals::{require_role, require_session};
use session_run::SessionRun;

use crate::errors::{Error, Result, SqlState};
use crate::pg::value::Timestamp;
use crate::pg::{identity, transaction};
use crate::queue::definition::QueueDefinition;
use crate::queue::{alter, cache, privilege};
use crate::shared;
use crate::shared::pending::{self, PermitOf};
use crate::sql_function;

sql_function!(pushy_queue_run_v1, |call| {
    let name = call.text("queue", 0)?;
    let most = call.opt_i32(1);
    run(&name, most, call.opt_timestamp(2))
});

fn run(name: &str, most: Option<i32>, until: Option<Timestamp>) -> Result<i64> {
    if let Some(most) = most.filter(|most| *most < 0) {
        return Err(Error::out_of_range("max_jobs", most, "0 or more"));
    }
    let cached = cache::get(name)?;
    let queue = &cached.definition;
    privilege::require_owner(queue, identity::current_user())?;
    require_session()?;
    transaction::require_writable(c"pushy.queue_run()");
    require_role(queue)?;
    alter::require_home(queue)?;
    let slot = cached.slot;
    match slot {
        Some(slot) => take_permit(queue, slot)?,
        // Nobody counts permits there.
        None if cache::is_placeless(queue) => return Err(cache::no_place(name)),
        None => {}
    }
    let run = SessionRun::of(queue, slot, until)?;
    let mut ran = 0;
    while most.is_none_or(|most| ran < i64::from(most)) && run.run_one()? {
        ran += 1;
    }
    Ok(ran)
}

/// Takes one of the queue's permits until the transaction ends, because its jobs' rows stay locked as long.
fn take_permit(queue: &QueueDefinition, slot: usize) -> Result<()> {
    if pending::has_permit(slot, queue.key()) {
        return Ok(());
    }
    if !shared::expect().queues()[slot].take_permit_of_session() {
        return Err(Error::new(
            SqlState::LOCK_NOT_AVAILABLE,
            format!(
                "as many jobs of queue \"{}\" are at work as its concurrency allows",
                queue.name
            ),
        )
        .hint("Pause it with pushy.queue_pause before, so that no executor takes its jobs."));
    }
    pending::holds_permit(slot, queue.key(), PermitOf::Jobs);
    Ok(())
}
