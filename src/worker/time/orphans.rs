//! A scheduler's orphans: jobs whose queue was dropped while they were being enqueued are discarded.

use std::sync::atomic::Ordering;

use pushy_core::rest::Rest;

use super::scheduler::Scheduler;
use crate::errors::{Error, Result, SqlState};
use crate::job::moves::discard;
use crate::pg::{clock, identity, transaction};

/// Rows per transaction: a scheduler never holds many locks, nor a snapshot for long.
const ROWS: usize = 1000;

/// How far a look has come through the table of jobs, and how long (µs) that took.
#[derive(Clone, Copy, Default)]
pub(super) struct OrphanLook {
    /// A page of the table.
    from: u32,
    took_us: i64,
}

impl Scheduler {
    /// A look goes through all jobs that wait, some pages in a round: then it rests. What is asked for meanwhile is another look's.
    pub(super) fn discard_orphans_if_asked(&self) -> Result<()> {
        let (slot, began) = (self.database_slot, clock::now());
        let look = match self.orphans.take() {
            Some(look) => look,
            None => {
                let rests_until = slot.orphans_rest_until.load(Ordering::SeqCst);
                if Rest::ORPHANS.is_on(rests_until, began.0) {
                    if slot.orphans_requested.load(Ordering::SeqCst) {
                        slot.announce_due(rests_until);
                    }
                    return Ok(());
                }
                if !slot.orphans_requested.swap(false, Ordering::SeqCst) {
                    return Ok(());
                }
                OrphanLook::default()
            }
        };
        let found = transaction::run_unless_busy(|| discard_orphans(look.from));
        let now = clock::now().0;
        let took_us = look.took_us + (now - began.0);
        if let Ok(Some(Some(from))) = found {
            self.orphans.set(Some(OrphanLook { from, took_us }));
            slot.announce_due(now);
            return Ok(());
        }
        let rests_until = Rest::ORPHANS.until(took_us, now);
        slot.orphans_rest_until.store(rests_until, Ordering::SeqCst);
        if !matches!(found, Ok(Some(_))) {
            slot.orphans_requested.store(true, Ordering::SeqCst);
            self.come_back_unless(false);
        }
        found.map(|_| ())
    }
}

/// Discards jobs whose queue was dropped while they were being enqueued, of some pages of the table from page `from` on; answers the page
/// to go on with, None behind the last.
fn discard_orphans(from: u32) -> Result<Option<u32>> {
    let (lost, next) = identity::as_owner(|| discard::orphans(from, ROWS))?;
    if let Some(first) = lost.first() {
        transaction::log_at_commit(
            Error::new(
                SqlState::UNDEFINED_OBJECT,
                format!(
                    "jobs were discarded because their queue was dropped: {}",
                    lost.len()
                ),
            )
            .detail(format!("The first is job {first}.")),
        );
    }
    Ok(next)
}
