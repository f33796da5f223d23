//! A claim that finds nothing, while leases are over and no scheduler can come to take back what was leased, says so: its caller sees a
//! queue that is empty.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::errors::{Error, Result, SqlState};
use crate::obstacle;
use crate::pg::ereport;
use crate::pg::per_process::PerProcess;
use crate::pg::value::Timestamp;
use crate::queue::definition::QueueDefinition;
use crate::queue::leased;
use crate::shared;

static WARNED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Said once in a session. As the extension's owner.
pub(super) fn warn(queue: &QueueDefinition, now: Timestamp) -> Result<()> {
    match shared::get() {
        Some(shared) if shared.lacks_worker_slot.load(Ordering::SeqCst) != 0 && !WARNED.get() => {
            say(queue, now)
        }
        _ => Ok(()),
    }
}

#[cold]
fn say(queue: &QueueDefinition, now: Timestamp) -> Result<()> {
    let Some(finding) = shared::get().and_then(obstacle::lacks_worker_slot) else {
        return Ok(());
    };
    if !leased::is_any_over(queue.queue_id, now)? {
        return Ok(());
    }
    WARNED.set(true);
    let warning = Error::new(
        SqlState::WARNING,
        format!(
            "no job of queue \"{}\" can be claimed: leases are over, and nobody takes back what was leased, because {}",
            queue.name, finding.reason
        ),
    );
    ereport::warning(&warning.hint(format!("{}.", finding.fix.unwrap_or_default())));
    Ok(())
}
