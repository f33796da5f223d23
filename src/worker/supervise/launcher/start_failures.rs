//! Executors that could not be started, or did not come up: when they are tried again, and how that is said.

use std::sync::atomic::Ordering;

use pushy_core::backoff;
use pushy_core::capacity::ExecutorKey;

use crate::errors::{Error, SqlState};
use crate::pg::{ereport, transaction};
use crate::queue::control_channel;
use crate::queue::eligibility::{self, Ineligible};
use crate::worker::launcher::Launcher;

impl Launcher {
    /// A pair whose executor does not come up is tried less and less often. Answers when it is tried again.
    pub(super) fn count_start_failure(&mut self, pair: ExecutorKey, now: i64) -> i64 {
        let trouble = self.start_failures.entry(pair).or_default();
        trouble.retry_at = now + backoff::START.delay_us(trouble.failures);
        trouble.failures += 1;
        let (failures, retry_at) = (trouble.failures, trouble.retry_at);
        if failures > 1 {
            self.show_retry(pair, retry_at);
        }
        retry_at
    }

    /// An executor of the pair has come up, or that none has is not for want of its own.
    pub(super) fn clear_start_failures(&mut self, pair: ExecutorKey) {
        if self
            .start_failures
            .remove(&pair)
            .is_some_and(|was| was.failures > 1)
        {
            self.show_retry(pair, 0);
        }
    }

    /// Says for queue_explain when the next start is tried; 0: none has failed.
    pub(super) fn show_retry(&self, ExecutorKey { database, role }: ExecutorKey, retry_at: i64) {
        for slot in self.shared.queues() {
            if slot.key().is_some_and(|key| key.database == database)
                && slot.role.load(Ordering::SeqCst) == role
            {
                slot.start_retry_at.store(retry_at, Ordering::SeqCst);
            }
        }
    }

    /// Why no session of the role can be opened in the database, asked before a worker dies of it.
    pub(super) fn obstacle(
        &self,
        ExecutorKey { database, role }: ExecutorKey,
    ) -> Option<Ineligible> {
        let asked = transaction::run(|| Ok(eligibility::session_of(database, role).err()));
        // If the look-up itself fails, the worker finds out.
        asked.ok().flatten()
    }

    /// Says why no executor of the pair is started, once as long as that is why: failures are forgotten by much else that
    /// happens meanwhile.
    pub(super) fn say_waiting(&mut self, pair: ExecutorKey, ineligible: &Ineligible) {
        let reason = ineligible.reason();
        if self.said_waiting.get(&pair) == Some(&reason) {
            return;
        }
        ereport::log(
            &Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!(
                    "jobs in database \"{}\" wait: {}",
                    self.names[&pair.database], reason
                ),
            )
            .hint(format!(
                "{}. This is said once until they run.",
                ineligible.fix()
            )),
        );
        self.said_waiting.insert(pair, reason);
        self.count_waiting(pair);
    }

    /// Counts the queues that wait, as those that an executor parks, and has them published. They go on by themselves when the role
    /// may have a session again.
    pub(super) fn count_waiting(&self, ExecutorKey { database, role }: ExecutorKey) {
        let Some(database_slot) = self.shared.find_database(database) else {
            return;
        };
        for (index, slot) in self.shared.queues().iter().enumerate() {
            let Some(key) = slot.key().filter(|key| key.database == database) else {
                continue;
            };
            if slot.role.load(Ordering::SeqCst) == role && slot.standing().is_open() {
                let parked = &self.shared.statistics_of(index).parked;
                parked.fetch_add(1, Ordering::Relaxed);
                control_channel::waits_for_session(self.shared, database_slot, key.queue_id, role);
            }
        }
    }
}
