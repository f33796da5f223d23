//! A scheduler's cancels: those that executors have left are carried out, some in a round.

use std::sync::atomic::Ordering;

use super::scheduler::Scheduler;
use crate::errors::Result;
use crate::pg::clock;
use crate::shared;
use crate::worker::cancels;

/// How far a look has come through the cancels.
#[derive(Clone, Copy)]
pub(super) struct CancelLook {
    /// The last job whose cancel was tried; 0: the look begins.
    after: i64,
    /// All up to there were carried out.
    all_done: bool,
}

impl Default for CancelLook {
    fn default() -> Self {
        Self {
            after: 0,
            all_done: true,
        }
    }
}

impl CancelLook {
    pub(super) fn is_midway(self) -> bool {
        self.after > 0
    }
}

impl Scheduler {
    /// Carries out cancels of jobs that no executor holds, some in a round. Jobs that somebody has locked are tried again soon.
    pub(super) fn carry_out_cancels(&self, first: bool) -> Result<()> {
        let requested = &self.database_slot.cancels_requested;
        let CancelLook { after, all_done } = self.cancels.take();
        // What is asked for on the way through may be of a job that was passed: it stays asked for.
        if after == 0 && !requested.swap(false, Ordering::SeqCst) && !first {
            return Ok(());
        }
        let done = cancels::cancel_some(shared::expect(), after);
        let (are_done, more_after) = match &done {
            Ok((all, more_after)) => (*all && all_done, *more_after),
            Err(_) => (false, None),
        };
        if let Some(after) = more_after {
            self.cancels.set(CancelLook {
                after,
                all_done: are_done,
            });
        } else if !are_done {
            requested.store(true, Ordering::SeqCst);
            self.come_back_unless(false);
        }
        if more_after.is_some() || requested.load(Ordering::SeqCst) && are_done {
            self.database_slot.announce_due(clock::now().0);
        }
        done.map(|_| ())
    }
}
