//! Savepoints: what was collected in one passes to the next outer one, or is forgotten.

use super::announce::{announce, announce_waiting};
use super::take_back::{forget_sequences, free_cancels, free_created, reopen};
use super::{LeaseChange, Pending, Why, PENDING};
use crate::pg::transaction_end::SavepointEnd;

pub(super) fn at_savepoint_end(end: SavepointEnd, level: i32) {
    PENDING.with(|cell| {
        let Ok(mut pending) = cell.try_borrow_mut() else {
            return;
        };
        let pending = &mut *pending;
        match end {
            SavepointEnd::Release => pending.raise_level(level),
            SavepointEnd::Rollback => pending.forget_level(level),
        }
    });
}

impl Pending {
    fn raise_level(&mut self, level: i32) {
        let mut at = 0;
        while at < self.announcements.len() {
            let announcement = self.announcements[at];
            if announcement.level < level {
                at += 1;
                continue;
            }
            let parent = self.announcements.iter().position(|other| {
                other.level == level - 1
                    && other.index == announcement.index
                    && other.key == announcement.key
                    && other.why == announcement.why
            });
            if let Some(parent) = parent {
                let parent = &mut self.announcements[parent];
                for (low, other) in parent.low.iter_mut().zip(announcement.low) {
                    *low = (*low).min(other);
                }
                parent.jobs += announcement.jobs;
                parent.promised |= announcement.promised;
                self.announcements.swap_remove(at);
            } else {
                self.announcements[at].level = level - 1;
                at += 1;
            }
        }
        for cancel in &mut self.cancels {
            cancel.0 = cancel.0.min(level - 1);
        }
        for count in &mut self.counts {
            count.level = count.level.min(level - 1);
        }
        for times in &mut self.times {
            times.level = times.level.min(level - 1);
        }
        // Merged, because a session may release any number of savepoints.
        while let Some(at) = self.left_out.iter().position(|entry| entry.0 >= level) {
            let (_, kind, left) = self.left_out.remove(at);
            self.leave_out(level - 1, kind, left);
        }
        while let Some(at) = self.leases.iter().position(|change| change.level >= level) {
            let inner = self.leases.swap_remove(at);
            let is_it =
                |outer: &&mut LeaseChange| outer.level == level - 1 && outer.key == inner.key;
            match self.leases.iter_mut().find(is_it) {
                Some(outer) => {
                    outer.added += inner.added;
                    outer.ended += inner.ended;
                    outer.said_at = outer.said_at.max(inner.said_at);
                }
                None => self.leases.push(LeaseChange {
                    level: level - 1,
                    ..inner
                }),
            }
        }
        for change in &mut self.changes {
            change.0 = change.0.min(level - 1);
        }
        for presence in &mut self.presence {
            presence.0 = presence.0.min(level - 1);
        }
    }

    fn forget_level(&mut self, level: i32) {
        if let Some(shared) = crate::shared::get() {
            free_created(shared, &self.changes, level);
            reopen(shared, &self.changes, level);
            free_cancels(shared, &self.cancels, level);
            // Whatever the level of the lock: an announcement too many costs a look.
            announce_waiting(shared, self.locked_waiting);
            forget_sequences(shared, &self.presence, level);
            for announcement in &self.announcements {
                if announcement.level >= level && announcement.why != Why::Ready {
                    announce(shared, announcement);
                }
            }
        }
        self.announcements
            .retain(|announcement| announcement.level < level);
        self.cancels.retain(|cancel| cancel.0 < level);
        self.counts.retain(|count| count.level < level);
        self.times.retain(|times| times.level < level);
        self.left_out.retain(|entry| entry.0 < level);
        self.leases.retain(|change| change.level < level);
        self.changes.retain(|change| change.0 < level);
        self.presence.retain(|presence| presence.0 < level);
    }
}
