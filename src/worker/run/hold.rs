//! The hold of an executor: the lease by which it has a procedure's job, from its commit until the job's end is committed.

use std::cell::Cell;

use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::job::moves::hold;
use crate::pg::per_process::PerProcess;
use crate::pg::value::Uuid;
use crate::pg::{clock, database, identity, transaction};
use crate::queue::eligibility::Handler;
use crate::shared::executor::ExecutorSlot;
use crate::shared::{self, Shared};
use crate::worker::batch::{BatchRunner, Ended};
use crate::worker::outcomes::Outcomes;
use crate::worker::work::Work;

/// A job that this executor holds by a lease.
#[derive(Clone, Copy)]
pub(in crate::worker) struct Hold {
    pub(super) token: Uuid,
    pub(super) handler: Handler,
    /// Where it stands when it is given back.
    pub(super) position: i64,
}

/// This process may hold a job by a lease: from before that is committed until its end is written.
static HOLDS: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Before the permit is returned, whoever takes it next must see that a lease may be lost: one that was not settled is put back by
/// whoever looks first. Also for a process that ends.
pub(in crate::worker) fn let_go(shared: &Shared, me: &ExecutorSlot) {
    if HOLDS.get() {
        let_go_of(shared, me);
    }
}

#[cold]
fn let_go_of(shared: &Shared, me: &ExecutorSlot) {
    me.clear_batch();
    me.clear_hold();
    if let Some(database_slot) = shared.find_database(database::current()) {
        database_slot.lose_hold();
        shared.announce_due(database_slot, 0);
    }
    HOLDS.set(false);
}

/// The job's end is written, or nobody is there to whom it matters.
pub(super) fn forget() {
    HOLDS.set(false);
}

impl BatchRunner {
    /// Turns the claim of one job into a lease, and commits it.
    #[cold]
    pub(in crate::worker) fn hold(
        &self,
        work: &Work,
        handler: Handler,
        claimed: &[Claimed],
        outcomes: &mut Outcomes,
    ) -> Result<Ended> {
        let job = &claimed[0];
        let token = identity::as_owner(|| hold::hold(&work.queue, job, clock::now()))?;
        HOLDS.set(true);
        shared::expect().executors[self.me].set_hold(token);
        outcomes.hold = Some(Hold {
            token,
            handler,
            position: job.position,
        });
        transaction::commit();
        Ok(Ended::Worked)
    }
}
