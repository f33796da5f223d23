//! A sweep: finds rows that came without a commit of ours, by COMMIT PREPARED or by replication, or whose lock somebody gave up.
//!
//! It walks over all rows done since the last vacuum, which may be millions, and anybody can have it asked for: so it goes on by
//! stretches, behind due jobs, and rests when it is over.

use std::sync::atomic::Ordering;

use pushy_core::rest::Rest;
use rustc_hash::FxHashSet;

use super::scheduler::Scheduler;
use crate::errors::Result;
use crate::job::live::{self, FirstReady};
use crate::job::promise;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{clock, database, identity, interrupts, transaction};
use crate::shared::queue_slot::{QueueKey, PRIORITIES};
use crate::shared::{self, pending};

/// Rows met in a transaction, done ones too; each look for the first of a queue and priority counts as some.
const ROWS: usize = 10_000;
const LOOK: usize = 10;

/// So long (µs) it goes on, one transaction after another, before the rest of a round has its turn.
const STRETCH_US: i64 = 50_000;

/// A sweep under way, and how far it has come.
pub struct Sweep {
    queues: Vec<(usize, QueueKey)>,
    /// Queues and their priorities that are done.
    done: usize,
    /// The position in the next of them from which it goes on.
    from: i64,
    /// Rows that it meets in a transaction.
    rows: usize,
    took_us: i64,
}

impl Sweep {
    /// Has all that waits looked at. The queues are those that have a slot: one that gets one later is looked through from the first position
    /// on, so no row of queues is read, of which there may be many dead ones.
    fn begin() -> Result<Self> {
        let here = database::current();
        let slots = shared::expect().queues().iter().enumerate();
        let queues = slots
            .filter_map(|(slot, queue)| Some((slot, queue.key()?)))
            .filter(|(_, key)| key.database == here)
            .collect();
        pending::waiting_from(0);
        // Leases too may have come with a load.
        pending::lease_ends(0);
        shared::expect().doubt_leases_of(database::current());
        free_unwatched();
        if let Some(database_slot) = shared::expect().find_database(database::current()) {
            promise::recall_again(database_slot)?;
            // So may those of sessions and executors that are not here.
            database_slot.sessions_known.store(false, Ordering::SeqCst);
            database_slot.lose_hold();
            pending::due(0);
        }
        Ok(Self {
            queues,
            done: 0,
            from: 0,
            rows: ROWS,
            took_us: 0,
        })
    }

    /// Announces the first ready job of each queue and priority, of some: true when there are more.
    fn go_on(&mut self) -> Result<bool> {
        let mut left = self.rows;
        // Bounded: by what is left, of which each look takes some.
        while let Some((slot, key)) = self.queues.get(self.done / PRIORITIES) {
            if left <= LOOK {
                return Ok(true);
            }
            left -= LOOK;
            let priority = self.done % PRIORITIES;
            match live::first_ready_of_some(key.queue_id, priority, self.from, &mut left)? {
                FirstReady::At(first) => pending::found(*slot, *key, priority, first),
                FirstReady::None => {}
                FirstReady::Not(position) => {
                    // A job may have more versions than that.
                    self.rows = if position > self.from {
                        ROWS
                    } else {
                        2 * self.rows
                    };
                    self.from = position;
                    return Ok(true);
                }
            }
            (self.done, self.from, self.rows) = (self.done + 1, 0, ROWS);
        }
        Ok(false)
    }
}

impl Scheduler {
    /// Begins a sweep, if somebody asked for one and it does not rest: true then.
    pub(super) fn begin_sweep_if_asked(&mut self) -> Result<bool> {
        let database_slot = self.database_slot;
        if self.sweep.is_some() || self.sweeps_rest() {
            return Ok(false);
        }
        // Before the request is taken: see `idle_mark_of`.
        database_slot.sweeping.store(true, Ordering::SeqCst);
        let asked = database_slot.sweep_requested.swap(false, Ordering::SeqCst);
        let began = clock::now();
        let begun = asked.then(|| transaction::run(|| identity::as_owner(Sweep::begin)));
        match begun.transpose() {
            Ok(Some(mut sweep)) => {
                sweep.took_us = clock::now().0 - began.0;
                self.sweep = Some(sweep);
                Ok(true)
            }
            Ok(None) => {
                database_slot.sweeping.store(false, Ordering::SeqCst);
                Ok(false)
            }
            Err(failure) => {
                self.give_up_sweep();
                Err(failure)
            }
        }
    }

    /// Goes on with the sweep under way, until it is over, or jobs are due, or others have their turn.
    pub(super) fn go_on_with_sweep(&mut self) -> Result<()> {
        let Some(mut sweep) = self.sweep.take() else {
            return Ok(());
        };
        let began = clock::now();
        loop {
            match transaction::run(|| identity::as_owner(|| sweep.go_on())) {
                Ok(true) => {}
                Ok(false) => break,
                Err(failure) => {
                    self.give_up_sweep();
                    return Err(failure);
                }
            }
            interrupts::check();
            let took_us = clock::now().0 - began.0;
            if took_us > STRETCH_US || self.are_jobs_due() {
                sweep.took_us += took_us.max(0);
                self.sweep = Some(sweep);
                return Ok(());
            }
        }
        let now = clock::now().0;
        let took_us = sweep.took_us + now - began.0;
        let slot = self.database_slot;
        for (rest, until) in [
            (Rest::SWEEP, &slot.sweep_rests_until),
            (Rest::ASKED_SWEEP, &slot.asked_sweeps_rest_until),
        ] {
            until.store(rest.until(took_us, now), Ordering::SeqCst);
        }
        slot.sweeping.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn give_up_sweep(&mut self) {
        self.database_slot
            .sweep_requested
            .store(true, Ordering::SeqCst);
        self.forget_sweep();
    }

    /// There is nothing to sweep any more.
    pub(super) fn forget_sweep(&mut self) {
        self.sweep = None;
        self.database_slot.sweeping.store(false, Ordering::SeqCst);
    }

    fn sweeps_rest(&self) -> bool {
        let until = &self.database_slot.asked_sweeps_rest_until;
        Rest::ASKED_SWEEP.is_on(until.load(Ordering::SeqCst), clock::now().0)
    }

    /// When (µs) there is more to sweep.
    pub(super) fn next_sweep(&self) -> Option<i64> {
        let (slot, now) = (self.database_slot, clock::now().0);
        if self.sweep.is_some() {
            return Some(now);
        }
        let is_asked = slot.sweep_requested.load(Ordering::SeqCst);
        is_asked.then(|| slot.asked_sweeps_rest_until.load(Ordering::SeqCst).max(now))
    }
}

static WATCHES: Plan = Plan::new("SELECT w.watch_id FROM pushy_internal.watch w", &[]);

/// Gives up the slots of watches that are gone, whose `unwatch` was prepared.
fn free_unwatched() {
    let shared = shared::expect();
    // Before the snapshot with which the rows are read.
    let had_slots = shared.watches_of_slots();
    if had_slots.is_empty() {
        return;
    }
    let there: FxHashSet<i32> = spi::connect(|spi| {
        let watches = spi.run(&WATCHES, params![]);
        watches.rows().map(|row| row.i32(1)).collect()
    });
    for watch_id in had_slots {
        if !there.contains(&watch_id) {
            shared.free_watch(watch_id);
        }
    }
}
