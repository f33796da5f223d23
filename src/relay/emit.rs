//! Emitting to LISTENers: NOTIFY in transactions that touch no table, so that nothing is flushed while the
//! server-wide lock of NOTIFY is held.

use pushy_core::backoff;
use pushy_core::channel::{hash, is_private, CONTROL};
use pushy_core::log::cursor::Cursor;
use rustc_hash::FxHashSet as HashSet;

use super::worker::Relay;
use crate::errors::{Error, Result};
use crate::log::filter::Filter;
use crate::log::read::{self, LogItem, Notice, Stretch};
use crate::pg::transaction;
use crate::pg::{clock, identity, interrupts, notify};
use crate::shared;
use crate::shared::database::NEVER;
use crate::shared::listened::ListenerCounter;
use crate::worker::failures_in_row::{FailuresInRow, Waits};

/// Notices of one transaction.
const MOST_AT_ONCE: usize = 1_000;
/// Bytes read at once, about.
const MOST_BYTES: usize = 1 << 20;

/// NOTIFY wakes every LISTENer of the database, whatever channel it listens to. So that with many of them the
/// writers keep their CPUs, emitting is followed by a pause of so many times the processor time that it took, up to
/// so long (µs): with 90, some 15 ms; with one, no more than there is between two ticks.
const PAUSES: i64 = 50;
const LONGEST_PAUSE_US: i64 = 30_000;

/// Longer than any pause after a failure (µs).
const LONGEST_US: i64 = 10_000_000;

/// So long (µs) it emits before subscriptions and ticks have their turn again.
const STRETCH_US: i64 = 20_000;

/// How long (ms) COMMIT waits for NOTIFY's lock. Every notifying transaction takes it, and keeps it while it waits for the
/// disk or a synchronous standby: time for some hundred commits, not for a standby that is gone.
pub(super) const NOTIFY_LOCK_MS: i32 = 1_000;

/// When NOTIFY has failed: its queue is full because a LISTENer sleeps in a transaction, or somebody keeps its lock. What else the
/// relay does goes on meanwhile.
pub struct EmitPause {
    failures: FailuresInRow,
    until: i64,
}

impl EmitPause {
    pub fn none() -> Self {
        Self {
            failures: FailuresInRow::none(None, &WAITS),
            until: 0,
        }
    }

    /// Until when nothing is tried.
    pub(super) fn rests_until(&self, now: i64) -> Option<i64> {
        // The clock may have been set back.
        (now < self.until && self.until - now <= LONGEST_US).then_some(self.until)
    }

    /// Makes room, as far as there is any, before the next attempt.
    pub(super) fn make_room(&self) -> Result<()> {
        if self.failures.are_none() {
            return Ok(());
        }
        transaction::run(|| {
            notify::advance_tail();
            Ok(())
        })
    }

    /// Answers when to try again.
    pub(super) fn count(&mut self, failure: &Error) -> i64 {
        let wait = self.failures.count(failure);
        self.until = clock::now().plus_us(wait.as_micros() as i64).0;
        self.until
    }
}

impl Relay {
    /// Emits what is in ticks; answers when to go on with what was not emitted.
    pub(super) fn emit(&mut self) -> i64 {
        if self.emitted == self.last {
            return NEVER;
        }
        let began = clock::now().0;
        if let Some(until) = self.muted.rests_until(began) {
            return until;
        }
        // The clock may have been set back.
        if began < self.emit_at && self.emit_at - began <= LONGEST_PAUSE_US {
            return self.emit_at;
        }
        let cost = clock::processor_time_us();
        match self.muted.make_room().and_then(|()| self.emit_some()) {
            Ok(false) => {
                self.muted = EmitPause::none();
                clock::now().0
            }
            Ok(true) => {
                let cost = clock::processor_time_us() - cost;
                self.emit_at = clock::now().0 + (PAUSES * cost).min(LONGEST_PAUSE_US);
                self.muted = EmitPause::none();
                NEVER
            }
            Err(failure) => self.muted.count(&failure),
        }
    }

    /// Emits what is in ticks, for a while; true when that was all.
    fn emit_some(&mut self) -> Result<bool> {
        let until = clock::now().0 + STRETCH_US;
        if let Some(fresh) = self.fresh.take() {
            self.emit_notices(&fresh.notices)?;
            self.set_emitted(fresh.to);
        }
        while self.emitted < self.last {
            let (notices, resync, passed) = self.read_on()?;
            if let Some(at) = resync {
                emit_resync(at)?;
            }
            self.emit_notices(&notices)?;
            self.set_emitted(passed);
            interrupts::check();
            if clock::now().0 >= until {
                break;
            }
        }
        Ok(self.emitted == self.last)
    }

    /// What comes next: a resync, if it comes before them, notices, and how far that reaches.
    fn read_on(&self) -> Result<(Vec<Notice>, Option<Cursor>, Cursor)> {
        let mut notices: Vec<Notice> = Vec::new();
        let mut resync = None;
        let mut is_cut = false;
        let mut bytes = 0;
        let reached = transaction::run(|| {
            identity::as_owner(|| {
                read::after(self.emitted, &Filter::all(), Stretch::TURN, |found| {
                    match found {
                        LogItem::Resync(_) if !notices.is_empty() => {
                            is_cut = true;
                            return Ok(false);
                        }
                        LogItem::Resync(at) => resync = Some(at),
                        LogItem::Notice(notice) => {
                            bytes += notice.payload.len();
                            notices.push(notice);
                        }
                    }
                    Ok(notices.len() < MOST_AT_ONCE && bytes < MOST_BYTES)
                })
            })
        })?;
        let passed = match notices.last() {
            Some(last) if is_cut => last.cursor,
            _ => reached.passed,
        };
        Ok((notices, resync, passed))
    }

    /// Whether a session listens to the channel of this hash; to be asked of what has committed.
    pub(super) fn is_heard(&self, channel: u64) -> bool {
        let counter = ListenerCounter::of(self.database_slot.oid(), channel);
        shared::expect().listened.has(counter)
    }

    /// Emits notices in order, unless nobody would hear them. NOTIFY delivers equal ones of a transaction once; those
    /// that are not to be merged go into transactions of their own.
    fn emit_notices(&mut self, notices: &[Notice]) -> Result<()> {
        let heard: Vec<&Notice> = notices
            .iter()
            .filter(|notice| !is_private(&notice.channel))
            .filter(|notice| self.is_heard(hash(&notice.channel)))
            .collect();
        let mut rest = &heard[..];
        while !rest.is_empty() {
            interrupts::check();
            let mut together = HashSet::default();
            let alone = rest
                .iter()
                .position(|notice| !together.insert((&notice.channel, &notice.payload)));
            let count = alone.unwrap_or(rest.len()).min(MOST_AT_ONCE);
            let (now, later) = rest.split_at(count);
            transaction::run_within(NOTIFY_LOCK_MS, || {
                for notice in now {
                    notify::send(&notice.channel, &notice.payload);
                }
                Ok(())
            })?;
            self.set_emitted(now[count - 1].cursor);
            rest = later;
        }
        Ok(())
    }

    fn set_emitted(&mut self, emitted: Cursor) {
        self.emitted = emitted;
        self.database_slot
            .log
            .set_emitted(emitted.epoch, emitted.tick, emitted.n);
    }
}

fn emit_resync(at: Cursor) -> Result<()> {
    let message = format!("{{\"v\":1,\"event\":\"resync\",\"cursor\":\"{at}\"}}");
    transaction::run_within(NOTIFY_LOCK_MS, || {
        notify::send(CONTROL, message.as_bytes());
        Ok(())
    })
}

static WAITS: Waits = Waits {
    what: "LISTENers hear nothing",
    detail: None,
    hint: "Nothing is lost while the event log keeps it. If the queue of NOTIFY is full, a LISTENer sits in a transaction, and every other NOTIFY fails: end it. This is said once until they hear again.",
    backoff: backoff::NOTIFY,
};
