//! Executors: started for pairs that have work and nobody to do it, looked after when they have ended.

use std::sync::atomic::Ordering;

use pushy_core::backoff;
use pushy_core::capacity::{ExecutorKey, SLICE_US, START_US};
use pushy_core::gate::{Asker, Closed};
use pushy_core::slots::Class;

use crate::errors::{Error, SqlState};
use crate::pg::worker::{self, Status};
use crate::pg::{clock, ereport, signals};
use crate::settings;
use crate::shared::database::NEVER;
use crate::shared::executor::{ExecutorSlot, ExecutorState};
use crate::worker::executor_process;
use crate::worker::launcher::{next_check_of_start, Launcher, LOST_US};

impl Launcher {
    /// Looks after executors that have ended: what their note says, and those that never came up. Answers when to look at
    /// those that are coming.
    pub(super) fn reap_executors(&mut self) -> i64 {
        let shared = self.shared;
        let mut next = NEVER;
        for (slot, executor) in shared.executors.iter().enumerate() {
            let state = executor.state();
            if state == ExecutorState::Free {
                let ended = self.executors.remove(&slot);
                if let Some((_, pair)) = &ended {
                    if executor.came_up.load(Ordering::SeqCst) {
                        let pair = *pair;
                        self.clear_start_failures(pair);
                    }
                }
                if ended.is_some() || self.recorder.is_noted(slot) {
                    let judged = self.recorder.find_verdicts_of_exit(slot);
                    self.announce_verdicts(judged);
                }
                continue;
            }
            let pair = executor.executor_key();
            let started_at = executor.started_at.load(Ordering::SeqCst);
            if !state.is_coming() {
                self.clear_start_failures(pair);
                self.hangs.came_up(pair.database, started_at);
                continue;
            }
            let now = clock::now().0;
            let is_gone = match self.executors.get(&slot) {
                Some((handle, _)) => handle.status() == Status::Stopped,
                // A launcher before us started it.
                None => now - started_at > LOST_US,
            };
            if is_gone && executor.give_up_start() {
                self.executors.remove(&slot);
                if let Some(database_slot) = shared.find_database(pair.database) {
                    database_slot.worker_left.broadcast();
                }
            } else {
                if state == ExecutorState::Connecting && now - started_at > START_US {
                    self.end_start(executor, pair, now);
                }
                next = next.min(next_check_of_start(started_at, now));
            }
        }
        next
    }

    /// Ends an executor that has not come up in time.
    #[cold]
    fn end_start(&mut self, executor: &ExecutorSlot, pair: ExecutorKey, now: i64) {
        if executor.note_asked() {
            let times = self.hangs.ended(pair.database, now);
            let trouble = self.start_failures.entry(pair).or_default();
            trouble.retry_at = now + backoff::START.delay_us(trouble.failures);
            let retry_at = trouble.retry_at;
            self.show_retry(pair, retry_at);
            if times == 1 {
                let name = self.names.get(&pair.database).cloned();
                say_hanging(&name.unwrap_or_else(|| pair.database.to_string()));
            }
        }
        signals::terminate(executor.pid.load(Ordering::SeqCst));
    }

    /// An executor's end was judged: a scheduler carries it out, or no job is charged.
    fn announce_verdicts(&self, judged: bool) {
        if judged {
            for database_slot in &self.shared.databases {
                if database_slot.oid() != 0 && self.recorder.has_verdicts(database_slot.oid()) {
                    database_slot.scheduler().wake();
                }
            }
            self.shared.wake_executors();
        }
    }

    /// The pairs that have work no executor will take, each once, in the order of their turn.
    fn pairs_in_need(&mut self) -> Vec<(ExecutorKey, usize)> {
        let shared = self.shared;
        let now = clock::now().0;
        let mut needs: Vec<(ExecutorKey, usize)> = Vec::new();
        self.next_held = NEVER;
        for index in shared.ready_from(0) {
            let slot = &shared.queues()[index];
            let Some(queue) = slot.key() else {
                shared.clear_ready(index);
                continue;
            };
            if !slot.may_be_ready() {
                continue;
            }
            match shared.gate(index, now, Asker::Launcher) {
                Ok(()) => {}
                Err(Closed::SuspendedUntil(until)) => {
                    self.next_held = self.next_held.min(until);
                    continue;
                }
                Err(_) => continue,
            }
            let pair = ExecutorKey {
                database: queue.database,
                role: slot.role.load(Ordering::SeqCst),
            };
            if !needs.iter().any(|(other, _)| *other == pair) {
                needs.push((pair, 0));
            }
        }
        needs.retain_mut(|(pair, serving)| {
            let mut coming = false;
            for executor in &shared.executors {
                if !executor.serves(pair.database, pair.role) {
                    continue;
                }
                match executor.state() {
                    ExecutorState::Starting | ExecutorState::Connecting => coming = true,
                    ExecutorState::Idle => coming |= executor.wake_if_idle(),
                    ExecutorState::Busy if !executor.stop_requested.load(Ordering::SeqCst) => {
                        *serving += 1;
                    }
                    _ => {}
                }
            }
            !coming
        });
        // Pairs without any executor come first, and among them the one whose last executor started longest ago.
        needs.sort_by_key(|(pair, serving)| {
            let started = self.last_started.get(pair).copied().unwrap_or(0);
            (*serving, started)
        });
        needs
    }

    /// Starts executors for pairs in need; answers when to look again.
    pub(super) fn start_executors(&mut self) -> i64 {
        let now = clock::now().0;
        // Before the ready bits are read: a process that finds an older time here does not call the launcher, but has set its
        // bit. What was to be looked at then is found again, or is over.
        let no_capacity_until = &self.shared.no_capacity_until;
        no_capacity_until.store(0, Ordering::SeqCst);
        let mut next = self.stop_surplus(now);
        self.turn.begins(Class::Executors);
        let has_any = settings::max_executors() > 0;
        for (pair, serving) in self.pairs_in_need() {
            let trouble = self
                .start_failures
                .get(&pair)
                .map_or(0, |trouble| trouble.retry_at);
            if trouble > now {
                next = next.min(trouble);
                continue;
            }
            let database_slot = self.shared.find_database(pair.database);
            if !database_slot.is_some_and(|database_slot| self.runs_in(database_slot)) {
                continue;
            }
            if !has_any {
                continue;
            }
            if serving == 0 && self.turn.is_others(Class::Executors) {
                self.turn.passed_on(Class::Executors);
                continue;
            }
            if serving > 0 && self.turn.lacks(Class::OfDatabases) {
                self.turn.spared_one();
                continue;
            }
            let capacity = match self.find_capacity(pair, serving, now) {
                Ok(capacity) => capacity,
                Err(at) => {
                    next = next.min(at);
                    continue;
                }
            };
            // Before another executor is asked to leave for it.
            if let Some(ineligible) = self.obstacle(pair) {
                next = next.min(self.count_start_failure(pair, now));
                self.say_waiting(pair, &ineligible);
                continue;
            }
            self.said_waiting.remove(&pair);
            if let Err(at) = self.take_capacity(&capacity, now) {
                next = next.min(at);
                continue;
            }
            match self.start_executor(pair, now) {
                Ok(()) => self.got_worker_slot(Class::Executors),
                Err(at) => {
                    next = next.min(at);
                    if self.found_no_slot && serving == 0 {
                        self.turn.lacked(Class::Executors);
                        next = next.min(self.make_room(Some(pair), now));
                    }
                    break;
                }
            }
        }
        next.min(self.next_held)
    }

    fn start_executor(&mut self, pair: ExecutorKey, now: i64) -> Result<(), i64> {
        let shared = self.shared;
        let Some(slot) = shared.executors.find_free() else {
            return Err(now + SLICE_US);
        };
        // Before the slot is reserved: a note in a taken slot does not count as one left behind.
        let judged = self.recorder.find_verdicts_of_exit(slot);
        self.announce_verdicts(judged);
        let Some(start) = shared.executors[slot].reserve(slot, pair.database, pair.role) else {
            return Err(now + SLICE_US);
        };
        // A start counts as failed until the executor has come up.
        self.count_start_failure(pair, now);
        let title = format!("pushy executor: {}", self.names[&pair.database]);
        match worker::start(&executor_process::PROCESS, &title, start.to_arg()) {
            Some(handle) => {
                self.executors.insert(slot, (handle, pair));
                self.last_started.insert(pair, now);
                Ok(())
            }
            None => {
                self.clear_start_failures(pair);
                shared.executors[slot].give_up_start();
                Err(self.no_worker_slot(now))
            }
        }
    }
}

fn say_hanging(database: &str) {
    ereport::log(
        &Error::new(
            SqlState::LOCK_NOT_AVAILABLE,
            format!(
                "jobs in database \"{database}\" wait: an executor that was started there did not come up within {} s, and was ended",
                START_US / 1_000_000
            ),
        )
        .hint(format!("Somebody holds what every new session of the database needs (VACUUM FULL or LOCK of a table of pg_catalog): pg_locks says who. It is tried again, after {}; this is said once until they run.", backoff::START)),
    );
}
