//! Procedures' jobs whose executors have ended without a word of them: put back before anything is claimed, or judged.

use crate::errors::Result;
use crate::job::moves::hold;
use crate::pg::object_lock::{self, LockMode, Number};
use crate::pg::{identity, transaction};
use crate::shared::database::DatabaseSlot;
use crate::shared::Shared;

/// False when somebody has a row that is needed: another look is due soon.
#[inline]
pub fn recover(shared: &Shared, database_slot: &DatabaseSlot) -> Result<bool> {
    if database_slot.has_lost_holds() {
        recover_all(shared, database_slot)
    } else {
        Ok(true)
    }
}

#[cold]
fn recover_all(shared: &Shared, database_slot: &DatabaseSlot) -> Result<bool> {
    // Before any snapshot: what is lost from here on is not settled by this look.
    let lost = database_slot.lost_holds();
    let all = transaction::run(|| {
        // One after the other, because who finds a row locked by another who puts the job back would go on as if a stranger had it.
        object_lock::lock("lease", Number(0, 0), LockMode::Alone, || Ok(()))?;
        identity::as_owner(|| hold::recover(shared))
    })?;
    if all {
        database_slot.have_recovered(lost);
    }
    Ok(all)
}
