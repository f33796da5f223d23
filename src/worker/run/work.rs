//! A queue as an executor works it, and its handler.

use crate::errors::Result;
use crate::job::claimed::Claimed;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{array, catalog_changes, identity, transaction, BuiltinOid};
use crate::queue::definition::QueueDefinition;
use crate::queue::eligibility::{self, Handler, Ineligible};
use crate::shared::Shared;

/// A queue as an executor works it.
pub struct Work {
    pub queue: QueueDefinition,
    pub name: std::rc::Rc<str>,
    pub slot: usize,
    /// Jobs of the last batch, and whether it ran all it had asked for.
    pub(in crate::worker) previous: u32,
    pub(in crate::worker) previous_full: bool,
    /// The handler as it was found eligible, and the count of catalog changes then.
    checked_handler: Option<(u64, Handler)>,
}

impl Work {
    pub fn new(queue: QueueDefinition, slot: usize) -> Self {
        Self {
            name: queue.name.as_str().into(),
            queue,
            slot,
            previous: 0,
            previous_full: false,
            checked_handler: None,
        }
    }

    /// The handler, if the queue can run. Asked in each batch, but looked up after changes of the catalog
    /// only (7 % of a batch of one).
    pub(super) fn handler(&mut self) -> std::result::Result<Handler, Ineligible> {
        let changes = catalog_changes::count();
        if let Some((checked_at, handler)) = self.checked_handler {
            if checked_at == changes {
                return Ok(handler);
            }
        }
        eligibility::check_entry(&self.queue)?;
        let handler = eligibility::check(&self.queue)?;
        self.checked_handler = Some((changes, handler));
        Ok(handler)
    }
}

/// The handler, if it is still eligible for those who have enqueued these jobs: one of them may have dropped it in the same
/// transaction, and another before it began. None: the next batch finds that out, and parks the queue.
pub(super) fn still_eligible(
    shared: &Shared,
    work: &mut Work,
    claimed: &[Claimed],
) -> Result<Option<Handler>> {
    if shared.queues()[work.slot].is_changing() {
        await_enqueuers(claimed)?;
    }
    identity::accept_changes();
    Ok(work.handler().ok())
}

static ENQUEUERS: Plan = Plan::new(
    "SELECT DISTINCT j.xmin FROM pushy_internal.live_job j WHERE j.id OPERATOR(pg_catalog.=) ANY ($1)",
    &[BuiltinOid::INT8ARRAYOID],
);

/// Waits until those who have enqueued these jobs, which can be seen, have announced what they changed in the catalogs: a moment.
#[cold]
fn await_enqueuers(claimed: &[Claimed]) -> Result<()> {
    let ids: Vec<i64> = claimed.iter().map(|job| job.id).collect();
    identity::as_owner(|| {
        let enqueuers: Vec<u32> = spi::connect(|spi| {
            let found = spi.run(&ENQUEUERS, params![array::of_int8s(&ids)]);
            found.rows().map(|row| row.oid(1).to_u32()).collect()
        });
        enqueuers.into_iter().for_each(transaction::await_end);
        Ok(())
    })
}
