//! Room for workers: who makes it when pushy.max_executors or the server's worker slots are used up. The rules are
//! `pushy_core::capacity`'s.

use std::sync::atomic::Ordering;

use pushy_core::capacity::{self, Doing, Executor, Room, SLICE_US};

use crate::errors::{Error, SqlState};
use crate::pg::ereport;
use crate::settings;
use crate::shared::database::NEVER;
use crate::shared::executor::{self, ExecutorState};
use crate::worker::launcher::{Group, Launching};

/// The postmaster frees the slot of a worker that has ended within this time.
const SLOT_RETURN_US: i64 = 50_000;

fn seen(executor: &executor::Executor) -> Option<Executor> {
    let since = executor.batch_began.load(Ordering::SeqCst);
    let doing = match executor.state() {
        ExecutorState::Free => return None,
        ExecutorState::Starting | ExecutorState::Connecting => Doing::Coming,
        ExecutorState::Stopping => Doing::Going,
        ExecutorState::Idle => Doing::Idle {
            since: executor.idle_since.load(Ordering::SeqCst),
        },
        ExecutorState::Busy if since != 0 => Doing::Batch { since },
        ExecutorState::Busy => Doing::Looking,
    };
    Some(Executor {
        group: capacity::Group {
            database: executor.database.load(Ordering::SeqCst),
            role: executor.role.load(Ordering::SeqCst),
        },
        started_at: executor.started_at.load(Ordering::SeqCst),
        doing,
        is_asked: executor.stop_requested.load(Ordering::SeqCst),
    })
}

impl Launching {
    /// All executors there are, each with its slot.
    fn seen(&self) -> (Vec<usize>, Vec<Executor>) {
        let slots = self.shared.executors.iter().enumerate();
        slots
            .filter_map(|(slot, executor)| Some((slot, seen(executor)?)))
            .unzip()
    }

    /// Whether an executor of the group, of which so many are busy, may start now; if not, when to look again. Another may have
    /// been asked to leave for it.
    pub(crate) fn find_room(&self, group: Group, serving: usize, now: i64) -> Result<(), i64> {
        let (slots, executors) = self.seen();
        self.hangs
            .may_start(group.0, &executors, now)
            .map_err(|at| at.unwrap_or(NEVER))?;
        let room = capacity::room(of(group), serving, &executors, &settings::capacity(), now);
        if let (Room::Wait(Some(until)), true) = (room, serving > 0) {
            // Commits need not call the launcher before.
            let looked_for_at = &self.shared.room_looked_for_at;
            looked_for_at.store(until, Ordering::SeqCst);
        }
        self.carry_out(room, &slots, now)
    }

    /// All worker slots of the server are taken, and this group has no worker: an executor leaves. Answers when to look again.
    pub(crate) fn make_room(&self, group: Group, now: i64) -> i64 {
        let (slots, executors) = self.seen();
        let group = of(group);
        let room = capacity::make_room(&executors, |executor| executor.group != group, now);
        self.carry_out(room, &slots, now).err().unwrap_or(NEVER)
    }

    fn carry_out(&self, room: Room, slots: &[usize], now: i64) -> Result<(), i64> {
        match room {
            Room::Start => Ok(()),
            Room::Ask(index) => {
                // The executor's exit wakes the launcher.
                self.shared.executors[slots[index]].ask_to_stop();
                Err(now + SLICE_US)
            }
            Room::Wait(until) => Err(until.unwrap_or(NEVER)),
        }
    }

    /// There are more executors than pushy.max_executors, because it was lowered or because some came from the reserve: those
    /// whose time is over leave. Answers when to look again.
    pub(crate) fn stop_surplus(&self, now: i64) -> i64 {
        let limits = settings::capacity();
        // Bounded: each time one more executor is asked.
        loop {
            let (slots, executors) = self.seen();
            match capacity::surplus(&executors, &limits, now) {
                Some(index) => self.shared.executors[slots[index]].ask_to_stop(),
                // An executor may have to leave when its job is over, and does not call the launcher then: look again.
                None if executors.len() > limits.most => return now + SLICE_US,
                None => return NEVER,
            }
        }
    }

    /// No worker slot is free: the log says so once, with the setting to raise, until a start has succeeded. Not at the first
    /// look, because a worker that has just ended gives its slot back a moment later.
    pub(crate) fn starve(&mut self, now: i64) -> i64 {
        let since = *self.starved_since.get_or_insert(now);
        if now - since < SLICE_US {
            return now + SLOT_RETURN_US;
        }
        if self.shared.starved.swap(1, Ordering::SeqCst) == 0 {
            ereport::log(
                &Error::new(
                    SqlState::CONFIGURATION_LIMIT_EXCEEDED,
                    "jobs wait: no background worker slot is free",
                )
                .hint("Raise max_worker_processes: Pushy takes pushy.max_executors + pushy.reserved_executors + 2, and one for the relay of each database that has one, beside parallel queries and replication. Tried again every second; this is said once."),
            );
        }
        now + SLICE_US
    }

    pub(crate) fn fed(&mut self) {
        self.shared.starved.store(0, Ordering::SeqCst);
        self.starved_since = None;
    }
}

fn of((database, role): Group) -> capacity::Group {
    capacity::Group { database, role }
}
