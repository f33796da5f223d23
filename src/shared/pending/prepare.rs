//! What a transaction that is prepared brings with its end, as far as others can announce it then.

use super::Pending;
use crate::pg::transaction_end;
use crate::shared::database::NEVER;
use crate::shared::queue_slot::NOTHING;
use crate::shared::ready_at_end::{Brings, First, ReadyAtEnd};
use crate::shared::Shared;

impl Pending {
    /// In the callback of its end; it has collected what it had to.
    pub(super) fn brings(&self, shared: &Shared) -> Brings {
        if !transaction_end::is_expected() {
            return Brings::Nothing;
        }
        if self.brings_more_than_jobs() {
            return Brings::Anything;
        }
        let waiting_from = self.waiting_from.min(self.locked_waiting);
        let mut ready = ReadyAtEnd::new(waiting_from, self.logged);
        for announcement in &self.announcements {
            let slot = &shared.queues()[announcement.index];
            if !slot.is(announcement.key) {
                return Brings::Anything;
            }
            for (priority, position) in announcement.low.iter().copied().enumerate() {
                let first = First {
                    key: announcement.key,
                    priority,
                    position,
                };
                if position != NOTHING && !ready.add(first) {
                    return Brings::Anything;
                }
            }
        }
        Brings::Ready(ready)
    }

    /// Every field is named: what is new here is more, until somebody says how it is announced.
    fn brings_more_than_jobs(&self) -> bool {
        let Self {
            // By the name of the queue and of the job's place.
            announcements: _,
            waiting_from: _,
            locked_waiting: _,
            logged: _,
            // The relay comes anyway; a LISTENer whose notices can be prepared waits for its next tick.
            awaited: _,
            // Carried out, and published, by the transaction itself before it was prepared.
            cancels,
            left_out: _,
            unsaid_to_gateways: _,
            counts,
            times,
            unplaced,
            changes,
            presence,
            due,
            lease_ends,
            leases,
            sweep,
            unsaid,
            rotated,
            access,
            unlogged,
            marker,
            permits,
            // Remembered beside it.
            prepares: _,
            quiesced: _,
            dropped_databases,
        } = self;
        let has_any = [
            cancels.is_empty(),
            counts.is_empty(),
            times.is_empty(),
            unplaced.is_empty(),
            changes.is_empty(),
            presence.is_empty(),
            permits.is_empty(),
            leases.is_empty(),
            dropped_databases.is_empty(),
        ]
        .contains(&false);
        let is_any = [*sweep, *unsaid, *rotated, *access, *unlogged].contains(&true);
        has_any || is_any || marker.is_some() || [*due, *lease_ends].iter().any(|at| *at != NEVER)
    }
}
