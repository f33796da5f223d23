//! What a commit announces that seldom changes: definitions, tables that are used in rotation, the extension itself.

use std::sync::atomic::Ordering;

use super::announce::ask_for_orphans;
use crate::shared::database::Presence;
use crate::shared::pending::{DefinitionChange, Pending};
use crate::shared::queue_slot::{QueueKey, PRIORITIES};
use crate::shared::Shared;

impl Pending {
    #[cold]
    pub(super) fn announce_unplaced(&self, shared: &Shared, database: u32) {
        let definitions = shared.find_database(database).map_or(0, |database_slot| {
            database_slot.definitions.load(Ordering::SeqCst)
        });
        for (key, before) in &self.unplaced {
            if let Some(index) = shared.find_queue(*key) {
                for priority in 0..PRIORITIES {
                    shared.announce(index, *key, priority, 0);
                }
                shared.wake_for(index);
            }
            if *before != definitions {
                // The queue may have been dropped meanwhile; a drop that comes later looks itself.
                ask_for_orphans(shared, database);
            }
        }
    }

    /// Whether others find another queue, privilege or extension than they have read.
    pub(super) fn changes_caches(&self) -> bool {
        let is_cached =
            |change: &DefinitionChange| !matches!(change, DefinitionChange::Subscriptions);
        !self.presence.is_empty() || self.changes.iter().any(|(_, change)| is_cached(change))
    }

    fn creates(&self, key: QueueKey) -> bool {
        self.changes.iter().any(
            |(_, change)| matches!(change, DefinitionChange::Created(facts) if facts.key == key),
        )
    }

    /// What seldom changes: definitions, tables that take turns, the extension itself.
    #[cold]
    pub(super) fn announce_changes(&self, shared: &Shared, database: u32) {
        // Before any process is woken: it must find its cache invalid.
        if self.changes_caches() {
            if let Some(slot) = shared.find_database(database) {
                slot.definitions.fetch_add(1, Ordering::SeqCst);
                shared.set_served(slot, true);
                if slot.log.has_stopped.load(Ordering::SeqCst) {
                    shared.announce_logged(slot, true);
                }
            }
        }
        if self.rotated || !self.presence.is_empty() {
            if let Some(slot) = shared.find_database(database) {
                slot.rotations.fetch_add(1, Ordering::SeqCst);
            }
        }
        let was_gone = |(_, presence): &(i32, Presence)| *presence == Presence::Absent;
        if self.presence.iter().any(was_gone) {
            shared.free_queues_but(database, |key| self.creates(key));
        }
        for (_, change) in &self.changes {
            match change {
                DefinitionChange::Created(facts) | DefinitionChange::Defined(facts) => {
                    if let Some(index) = shared.find_queue(facts.key) {
                        shared.queues()[index].say(facts);
                        shared.set_ready(index);
                        shared.queues()[index].wake_all();
                        shared.wake_for(index);
                    } else if let Some(slot) = shared.find_database(database) {
                        // The scheduler reads the queues, and gives it a place.
                        shared.announce_due(slot, 0);
                    }
                }
                DefinitionChange::Dropped { key, .. } => {
                    shared.free_queue(*key);
                    ask_for_orphans(shared, database);
                }
                DefinitionChange::Privileges(Some(key)) => {
                    if let Some(index) = shared.find_queue(*key) {
                        shared.queues()[index].wake_all();
                    }
                }
                DefinitionChange::Privileges(None) | DefinitionChange::Subscriptions => {}
            }
        }
        if let Some(slot) = shared.find_database(database) {
            let is_of_readers = |change: &DefinitionChange| {
                matches!(
                    change,
                    DefinitionChange::Privileges(None) | DefinitionChange::Subscriptions
                )
            };
            if !self.presence.is_empty() || self.changes.iter().any(|(_, it)| is_of_readers(it)) {
                slot.subscriptions.fetch_add(1, Ordering::SeqCst);
                slot.log.announce_tick();
            }
        }
        if let Some((_, presence)) = self.presence.last().copied() {
            if presence == Presence::Absent {
                shared.free_queues_of(database);
                shared.cancels.forget(database);
                shared.free_watches_of(database);
                shared.forget_log_of(database);
            }
            if let Some(slot) = shared.find_database(database) {
                if presence == Presence::Present && slot.presence() == Presence::Unknown {
                    // Nobody has looked yet what is due here: the server has just started.
                    slot.announce_due(0);
                }
                shared.announce_presence(slot, presence);
                // Its tables may be others by now.
                slot.queues_rest_until.store(0, Ordering::SeqCst);
                slot.forget_unpublished();
                slot.log.forget_part();
                slot.scheduler().has_succeeded();
                slot.scheduler().retry_now();
            }
            shared.call_launcher();
        }
    }
}
