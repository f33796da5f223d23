//! The relay's process: when it comes, what it does in which order, when it leaves.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use pushy_core::backoff;
use pushy_core::log::cursor::Cursor;
use pushy_core::log::seen::Seen;
use pushy_core::log::unticked::Unticked;

use super::emit::EmitPause;
use super::part::AGAIN_US;
use super::queue_sinks::QueueSinks;
use crate::errors::Result;
use crate::installation;
use crate::log::read::Notice;
use crate::pg::per_process::PerProcess;
use crate::pg::{clock, guc, interrupts, latch, worker};
use crate::shared;
use crate::shared::database::{DatabaseSlot, Presence, NEVER};
use crate::shared::log::Ring;
use crate::worker::database_worker;
use crate::worker::failures_in_row::{FailuresInRow, Waits};
use crate::worker::idle_rounds::IdleRounds;
use crate::{settings, worker_entry};

/// Time (µs) between two ticks under load: what commits meanwhile is in one tick. After a rest the tick comes at once.
const GAP_US: i64 = 3_000;
/// The same while there is no subscription, and no LISTENer on a channel of the last notices.
const LONG_GAP_US: i64 = 20_000;
/// So long (µs) sizes and ages of the log are not looked at again.
const CHECK_PARTS_US: i64 = 200_000;
/// The same while the part that writers append to has reached its size.
const CHECK_WHEN_CROWDED_US: i64 = 10_000;
/// After so much rest it is written down how far was emitted.
const REST_US: i64 = 5_000_000;

worker_entry!(pushy_relay_main, relay);

/// `arg`: which start it is.
fn relay(arg: usize) {
    let shared = shared::expect();
    let Some(database_slot) = database_worker::start(arg, DatabaseSlot::relay, leave) else {
        return;
    };
    database_slot.relay().has_succeeded();
    for (name, value) in [
        (c"synchronous_commit", "off"),
        // In a deadlock with a session that drops the tables, the relay gives way.
        (c"deadlock_timeout", "10ms"),
        (c"jit", "off"),
    ] {
        guc::force(name, value);
    }
    let ring = shared.take_ring(database_slot);
    let mut relay = Relay {
        database_slot,
        ring,
        epoch: 0,
        next_tick: 1,
        part: 0,
        last: Cursor::START,
        last_at: 0,
        seen: Seen::default(),
        lost_until: 0,
        new_timeline: None,
        must_close: false,
        unticked: Unticked::default(),
        must_scan: true,
        emitted: Cursor::START,
        fresh: None,
        muted: EmitPause::none(),
        queues_muted: EmitPause::none(),
        emit_at: 0,
        told_queues_at: 0,
        written_down: None,
        reach: None,
        written_here: 0,
        tidy_at: 0,
        sinks: QueueSinks::default(),
        was_heard: true,
        is_awaited: true,
    };
    relay.live();
}

/// The relay has said when the next one is to come.
static HAS_SAID_DUE: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// A round has cleared flags and may not have acted on them yet.
static IN_ROUND: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

fn leave() {
    database_worker::stop(DatabaseSlot::relay, |shared, database_slot| {
        if IN_ROUND.get() {
            database_slot.log.look_again();
            shared.put_back_queues_to_tell(database_slot);
        }
        if !HAS_SAID_DUE.get() {
            // Something in the log may grow too old, though nothing is written any more.
            let due = clock::now().plus_us(AGAIN_US).0;
            database_slot.log.relay_due.fetch_min(due, Ordering::SeqCst);
        }
        shared.return_ring(database_slot);
        database_slot.log.relay_busy.store(false, Ordering::SeqCst);
    });
}

/// Notices that need not be read again.
pub(super) struct Fresh {
    /// Those on a channel that somebody listens to.
    pub(super) notices: Vec<Notice>,
    /// How far they reach.
    pub(super) to: Cursor,
}

pub struct Relay {
    pub(super) database_slot: &'static DatabaseSlot,
    /// None: all rings were taken; then each tick looks through the log.
    pub(super) ring: Option<&'static Ring>,
    /// This life, and its next tick.
    pub(super) epoch: i64,
    pub(super) next_tick: i64,
    /// The part that writers append to.
    pub(super) part: u32,
    /// The last event in a tick, and when that was written.
    pub(super) last: Cursor,
    pub(super) last_at: i64,
    /// Which transactions were over at the last tick.
    pub(super) seen: Seen,
    /// Each end of a transaction with a number below is followed by a resync; 0: none is.
    pub(super) lost_until: u64,
    /// The server's timeline, where readers have not been told that it is another.
    pub(super) new_timeline: Option<i32>,
    /// The gap could not be closed while the log was full.
    pub(super) must_close: bool,
    pub(super) unticked: Unticked,
    /// The ring does not say all that was written: the next tick reads the log.
    pub(super) must_scan: bool,
    /// The last event emitted to LISTENers.
    pub(super) emitted: Cursor,
    /// The notices after `emitted`, if they are still in memory.
    pub(super) fresh: Option<Fresh>,
    pub(super) muted: EmitPause,
    pub(super) queues_muted: EmitPause,
    /// When it emits again, at the earliest (µs).
    pub(super) emit_at: i64,
    /// When LISTENers of queues were told last (µs).
    pub(super) told_queues_at: i64,
    /// `emitted` as the table has it.
    pub(super) written_down: Option<Cursor>,
    /// The last event in each part.
    pub(super) reach: Option<Vec<Cursor>>,
    /// Bytes written to the current part since it was opened or the relay started, about.
    pub(super) written_here: i64,
    /// When free parts are looked at again (µs).
    pub(super) tidy_at: i64,
    pub(super) sinks: QueueSinks,
    /// Somebody listens to a channel of the last notices.
    pub(super) was_heard: bool,
    /// There is a subscription, or a LISTENer on a channel of the last notices.
    is_awaited: bool,
}

impl Relay {
    fn live(&mut self) {
        let mut failures = FailuresInRow::none(Some(backoff::HELD_US), &WAITS);
        let mut idle = IdleRounds::default();
        let mut started = false;
        let mut first = true;
        let mut ticked_at = 0;
        let mut parts_checked_at = 0;
        let mut rested_at = clock::now().0;
        loop {
            guc::reload_if_asked();
            interrupts::check();
            if self.database_slot.is_quiesced() || !settings::enabled() {
                return;
            }
            IN_ROUND.set(true);
            let progress = |relay: &Self| {
                let (ticks, sinks) = ((relay.epoch, relay.next_tick), relay.sinks.turns());
                (ticks, relay.last, relay.emitted, sinks)
            };
            let before = progress(self);
            self.database_slot.relay().set_rests(false);
            let outcome = self.round(&mut started, &mut ticked_at, &mut parts_checked_at);
            match outcome {
                Ok(Some(wait_us)) => {
                    IN_ROUND.set(self.sinks.is_unfinished());
                    failures.end();
                    let now = clock::now().0;
                    if self.emitted != self.last {
                        rested_at = now;
                    } else if first && self.next_tick == 1 {
                        // The relay came to look, and there was nothing.
                        rested_at = 0;
                        ticked_at = 0;
                    }
                    first = false;
                    let log = &self.database_slot.log;
                    log.relay_busy.store(false, Ordering::SeqCst);
                    worker::show_activity(None);
                    let rest = now - rested_at.max(ticked_at).max(self.told_queues_at);
                    let linger = settings::executor_linger().as_micros() as i64;
                    let mut could_not_leave = false;
                    let is_asked = self.database_slot.relay().is_asked_for_slot();
                    if is_asked || rest >= linger && !self.sinks.is_unfinished() {
                        // The next one comes when something is logged, when what is owed can be done, or when the log has aged.
                        match self.write_down().and_then(|()| self.next_expiry()) {
                            Ok(due) => {
                                let owed = now.saturating_add(wait_us);
                                log.relay_due.store(due.min(owed), Ordering::SeqCst);
                                HAS_SAID_DUE.set(true);
                                return;
                            }
                            // Somebody holds what it looks at.
                            Err(failure) if failure.is_busy() => could_not_leave = true,
                            Err(_) => return,
                        }
                    } else if rest >= REST_US {
                        let _ = self.write_down();
                    }
                    let next = if could_not_leave || self.sinks.is_unfinished() {
                        backoff::HELD_US
                    } else if rest < REST_US {
                        REST_US - rest
                    } else {
                        // What it wrote may grow too old while it rests.
                        (linger - rest)
                            .min(settings::log_keep().as_micros() as i64)
                            .max(GAP_US)
                    };
                    let has_worked = progress(self) != before;
                    let wait = idle.sleep("the relay", wait_us.min(next), has_worked);
                    let owes = log.is_dirty() || self.sinks.is_unfinished();
                    self.database_slot.relay().set_rests(!owes);
                    // What was emitted before an orderly restart is not emitted again after it.
                    latch::wait_unless_ended(Some(wait), || {
                        let _ = self.write_down();
                    });
                }
                Ok(None) => return,
                Err(failure) => {
                    self.database_slot.log.look_again();
                    installation::forget_if_gone(self.database_slot);
                    if self.database_slot.presence() == Presence::Absent {
                        return;
                    }
                    let left = failures.count(&failure);
                    let me = self.database_slot.relay();
                    if me.is_asked_for_slot() {
                        me.put_off(clock::now().0 + left.as_micros() as i64);
                        return;
                    }
                    me.set_rests(true);
                    latch::wait(Some(left));
                }
            }
        }
    }

    /// Does what there is to do; answers how long to wait for more (µs), None when the extension is gone.
    fn round(
        &mut self,
        started: &mut bool,
        ticked_at: &mut i64,
        parts_checked_at: &mut i64,
    ) -> Result<Option<i64>> {
        if !*started {
            if !self.start()? {
                return Ok(None);
            }
            *started = true;
            self.database_slot.log.look_again();
        }
        let log = &self.database_slot.log;
        if log.is_dirty() {
            let now = clock::now().0;
            let gap = if self.is_awaited || log.is_hurried() {
                GAP_US
            } else {
                LONG_GAP_US
            };
            if now - *ticked_at < gap && now >= *ticked_at {
                // Others commit meanwhile; the mark stays, so that they need not wake us.
                return Ok(Some(*ticked_at + gap - now));
            }
            log.relay_busy.store(true, Ordering::SeqCst);
            *ticked_at = now;
            let (since, ticks) = (log.take_dirty(), log.ticks());
            self.tick()?;
            if log.ticks() != ticks {
                log.count_tick(since);
            }
        }
        let retry_at = self.emit();
        let sinks_at = pass_over(self.run_sinks())?;
        let retry_at = retry_at.min(self.tell_queues());
        self.is_awaited = self.was_heard || self.sinks.has_subscriptions();
        log.set_takes_its_time(!self.is_awaited);
        let now = clock::now().0;
        let is_crowded = log.is_crowded.load(Ordering::SeqCst);
        let pause = if is_crowded {
            CHECK_WHEN_CROWDED_US
        } else {
            CHECK_PARTS_US
        };
        let mut check_parts_at = NEVER;
        if now - *parts_checked_at >= pause || now < *parts_checked_at {
            *parts_checked_at = now;
            log.is_crowded.store(false, Ordering::SeqCst);
            check_parts_at = pass_over(self.switch_and_empty().map(|()| NEVER))?;
            worker::report_statistics();
        } else if is_crowded {
            check_parts_at = *parts_checked_at + pause;
        }
        let again_at = if log.is_dirty() {
            0
        } else {
            retry_at.min(sinks_at).min(check_parts_at)
        };
        Ok(Some(again_at.saturating_sub(clock::now().0)))
    }
}

/// Passes over a step that needs something which somebody holds; answers when to come back, or the time that the step did.
fn pass_over(step: Result<i64>) -> Result<i64> {
    match step {
        Err(failure) if failure.is_busy() => Ok(clock::now().0 + backoff::HELD_US),
        done => done,
    }
}

static WAITS: Waits = Waits {
    what: "the relay waits",
    detail: None,
    hint: "Notices are kept in the event log meanwhile. It tries again, after {after}; this is said once until it succeeds.",
    backoff: backoff::RELAY,
};
