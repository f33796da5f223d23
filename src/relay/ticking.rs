//! Ticks: from one snapshot to the next, what has committed in between.

use std::sync::atomic::Ordering;

use pushy_core::channel;
use pushy_core::log::gap::{self, Settled};
use pushy_core::log::runs::Run;
use pushy_core::log::seen::Seen;
use pushy_core::log::written::{About, Written};
use rustc_hash::FxHashSet as HashSet;

use super::worker::{Fresh, Relay};
use crate::errors::{Error, Result, SqlState};
use crate::log;
use crate::log::events::{EventFetcher, Tables};
use crate::log::parts::{self, PARTS};
use crate::log::read::Notice;
use crate::log::tick::{self, Tick};
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::transaction;
use crate::pg::{clock, identity, snapshot, BuiltinOid};

/// Events of a tick that are kept in memory, to be emitted without reading them again.
const MOST_FRESH: usize = 2_000;

static TAKE_TIMELINE: Plan = Plan::new(
    "UPDATE pushy_internal.log_state SET timeline = $1",
    &[BuiltinOid::INT4OID],
);

static USE_PART: Plan = Plan::new(
    "UPDATE pushy_internal.log_part SET opened_at = $2, closed_at = $2, first_epoch = 0, first_tick = 0 \
      WHERE part OPERATOR(pg_catalog.=) $1 AND opened_at IS NULL",
    &[BuiltinOid::INT4OID, BuiltinOid::TIMESTAMPTZOID],
);

static WAIT_FOR: Plan = Plan::new(
    "UPDATE pushy_internal.log_state SET lost_until = $1",
    &[BuiltinOid::INT8OID],
);

/// What one look at the log found.
struct TickOutcome {
    seen: Seen,
    lost_until: u64,
    has_closed: bool,
    ticks: Vec<Tick>,
    fresh: Option<Vec<Notice>>,
}

impl Relay {
    /// Puts what has committed since the last tick into the next. Readers see it when that has committed; what
    /// can be lost in a crash is lost with the transactions it is of.
    pub(super) fn tick(&mut self) -> Result<()> {
        let log = &self.database_slot.log;
        let overflowed = self.ring.is_none_or(|ring| ring.has_overflowed());
        if overflowed || self.must_scan {
            // Before the snapshot and the read of the log: events written from here on are in the ring, or found, or both.
            if let Some(ring) = self.ring {
                ring.start_over();
            }
            self.unticked.start_over();
            self.must_scan = true;
        }
        // Until what is taken from the gap is written down: this process may end, or its transaction fail.
        let was_certain = log.gap_is_certain.swap(false, Ordering::SeqCst);
        let outcome = transaction::run(|| identity::as_owner(|| self.tick_once(was_certain)));
        let outcome = match outcome {
            Ok(looked) => looked,
            Err(failure) => {
                // Whatever the failure, the relay may not know all places of events now: the next tick reads the log.
                self.must_scan = true;
                return Err(failure);
            }
        };
        self.must_scan = self.ring.is_none();
        self.new_timeline = None;
        self.lost_until = outcome.lost_until;
        self.must_close = !outcome.has_closed && outcome.lost_until > 0;
        log.gap_is_certain.store(true, Ordering::SeqCst);
        self.unticked.drop_ended(&outcome.seen);
        log.pending.store(self.unticked.events(), Ordering::SeqCst);
        let Some(last) = outcome.ticks.last() else {
            return Ok(());
        };
        let known_to = self.fresh.as_ref().map_or(self.emitted, |fresh| fresh.to);
        let goes_on = known_to == self.last;
        self.next_tick = last.tick + 1;
        self.last = last.last();
        self.last_at = last.at.0;
        self.seen = outcome.seen;
        self.remember_reach(&outcome.ticks);
        self.written_here += outcome.ticks.iter().map(Tick::bytes_on_disk).sum::<i64>();
        let fresh = outcome.fresh.filter(|fresh| {
            let waiting = self.fresh.as_ref().map_or(0, |fresh| fresh.notices.len());
            // What does not fit, or comes after what did not, is read again.
            goes_on && waiting + fresh.len() <= MOST_FRESH
        });
        if let Some(notices) = fresh {
            let fresh = self.fresh.get_or_insert_with(|| Fresh {
                notices: Vec::new(),
                to: self.last,
            });
            fresh.notices.extend(notices);
            fresh.to = self.last;
        }
        self.database_slot.log.announce_tick();
        Ok(())
    }

    /// One look, in a transaction: finds what is over and writes it down.
    fn tick_once(&mut self, was_certain: bool) -> Result<TickOutcome> {
        let snapshot = snapshot::take_latest();
        let seen = snapshot.seen();
        if self.must_scan {
            self.scan()?;
        }
        // After the snapshot: whoever is over in it had announced where its events are.
        if let Some(ring) = self.ring {
            for written in ring.drain(self.database_slot.oid()) {
                if !self.seen.is_over(written.xid) {
                    self.unticked.add(written);
                }
            }
        }
        let mut due = self.unticked.due(&seen, transaction::has_committed);
        let all = due.len();
        due.retain(|run| !run.is_marker);
        let (gap, Settled { lost, until }) = self.settle(due.len() < all, was_certain, &seen);
        // Readers may have read what this server had not received when it was promoted. In one transaction with the tick that
        // says so: until that is written, whoever comes next owes it.
        if let Some(timeline) = self.new_timeline {
            spi::run(&TAKE_TIMELINE, params![timeline]);
        }
        let lost = lost || self.new_timeline.is_some();
        if until != self.lost_until {
            spi::run(&WAIT_FOR, params![until as i64]);
        }
        if due.is_empty() && !lost {
            return Ok(TickOutcome {
                seen,
                lost_until: until,
                has_closed: gap.has_closed,
                ticks: Vec::new(),
                fresh: None,
            });
        }
        self.was_heard = lost || due.iter().any(|run| self.unheard(run).is_none());
        let (ticks, fresh) = self.assemble(&due, &seen, lost)?;
        tick::write(self.part, &ticks)?;
        let parts = ticks.iter().fold(0, |all, tick| all | tick.parts);
        for part in (0..PARTS).filter(|part| *part != self.part && parts & (1 << part) != 0) {
            // A writer was late: the part had been emptied, and is in use again.
            spi::run(&USE_PART, params![part as i32, ticks[0].at]);
        }
        Ok(TickOutcome {
            seen,
            lost_until: until,
            has_closed: gap.has_closed,
            ticks,
            fresh,
        })
    }

    /// Whether readers get a resync, and after whose end again. After the snapshot, and the ring.
    fn settle(&self, is_due: bool, was_certain: bool, seen: &Seen) -> (gap::Tick, Settled) {
        let log = &self.database_slot.log;
        // While the log is full the gap stays open, so that not each of those who find no room leaves a marker.
        let has_closed = !log.is_full(self.part);
        let was_used = if has_closed {
            log.close_gap()
        } else {
            log.take_gap()
        };
        let tick = gap::Tick {
            was_certain,
            was_used,
            has_closed,
            is_due,
            next: transaction::next_xid(),
        };
        (tick, tick.settle(self.lost_until, &self.seen, seen))
    }

    /// Looks through the whole log for what is in no tick.
    fn scan(&mut self) -> Result<()> {
        self.unticked.start_over();
        for part in 0..PARTS {
            let table = parts::read_log(part)?;
            if table.blocks() == 0 {
                continue;
            }
            let (seen, unticked) = (&self.seen, &mut self.unticked);
            table.scan(|met| {
                let xid = met.row.i64(parts::log::XID) as u64;
                if !seen.is_over(xid) {
                    let channel = met.row.opt_bytes(parts::log::CHANNEL).unwrap_or_default();
                    unticked.find(Written {
                        part: part as u8,
                        block: met.block,
                        first: met.offset,
                        count: 1,
                        xid,
                        own_xid: met.xmin,
                        position: met.row.i64(parts::log::LSN),
                        is_marker: log::is_marker(&channel),
                        about: None,
                    });
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Ticks of what is due, and the events themselves unless they are many.
    fn assemble(
        &self,
        due: &[Written],
        seen: &Seen,
        lost: bool,
    ) -> Result<(Vec<Tick>, Option<Vec<Notice>>)> {
        let mut tables = Tables::default();
        for run in due {
            let slot = &mut tables[run.part as usize];
            if slot.is_none() {
                *slot = Some(parts::read_log(u32::from(run.part))?);
            }
        }
        let log = EventFetcher::new(&tables);
        let heard = due.iter().filter(|run| self.unheard(run).is_none());
        let total: usize = heard.map(|run| usize::from(run.count)).sum();
        let mut fresh = (total <= MOST_FRESH && !lost).then(|| Vec::with_capacity(total));
        let mut ticks = vec![self.empty_tick(self.next_tick, seen, lost)];
        for run in due {
            let whole = Run {
                part: run.part,
                block: run.block,
                first: run.first,
                count: run.count,
                position: run.position,
            };
            let mut rest = whole;
            // Bounded: each time some of the run's events are taken.
            while rest.count > 0 {
                if ticks[ticks.len() - 1].events as usize == tick::MOST_EVENTS {
                    let number = self.next_tick + ticks.len() as i64;
                    ticks.push(self.empty_tick(number, seen, false));
                }
                let current = ticks.last_mut().expect("there is one");
                let room = (tick::MOST_EVENTS - current.events as usize) as u16;
                let mut taken = rest;
                taken.count = taken.count.min(room);
                if let Some(about) = self.unheard(run).filter(|_| taken == whole) {
                    current.bytes += i64::from(about.bytes);
                    current.channels |= tick::hash_bit(about.channel);
                    current.add(taken);
                    break;
                }
                let is_there = log.events(&[taken], 0, |n, row| {
                    let cursor = current.cursor(current.events + n);
                    let channel = row.opt_bytes(parts::log::CHANNEL).unwrap_or_default();
                    let payload = row.length(parts::log::PAYLOAD);
                    let topic = row.length(parts::log::TOPIC);
                    current.bytes += (channel.len() + topic + payload) as i64;
                    let hash = channel::hash(&channel);
                    current.channels |= tick::hash_bit(hash);
                    let heard = fresh.as_mut().filter(|_| self.is_heard(hash));
                    if let Some(fresh) = heard {
                        fresh.push(Notice::of(&row, cursor, current.at, channel));
                    }
                    Ok(true)
                })?;
                if !is_there {
                    return Err(rewritten(u32::from(taken.part)));
                }
                current.add(taken);
                rest.first += taken.count;
                rest.position += i64::from(taken.count);
                rest.count -= taken.count;
            }
        }
        Ok((ticks, fresh.map(merged)))
    }

    /// What a run is about, when nobody would hear of it and its rows need not be read.
    fn unheard(&self, run: &Written) -> Option<About> {
        run.about.filter(|about| !self.is_heard(about.channel))
    }

    fn empty_tick(&self, number: i64, seen: &Seen, lost: bool) -> Tick {
        let (epoch, tick) = self.emitted_tick();
        Tick {
            epoch: self.epoch,
            tick: number,
            at: clock::now(),
            events: 0,
            bytes: 0,
            channels: 0,
            parts: 0,
            emitted: (epoch, tick),
            lost,
            seen: seen.encode(),
            runs: Vec::new(),
        }
    }

    /// The last tick emitted whole.
    pub(super) fn emitted_tick(&self) -> (i64, i64) {
        if self.emitted == self.last || self.emitted.n == i32::MAX {
            (self.emitted.epoch, self.emitted.tick)
        } else {
            (self.emitted.epoch, self.emitted.tick - 1)
        }
    }
}

/// Without those to be merged that a later one of their tick is equal to, as readers of a tick have it.
fn merged(mut notices: Vec<Notice>) -> Vec<Notice> {
    if notices.iter().any(|notice| notice.merge) {
        let mut later = HashSet::default();
        notices.reverse();
        notices
            .retain(|notice| !notice.merge || later.insert((notice.cursor.tick, notice.equal())));
        notices.reverse();
    }
    notices
}

fn rewritten(part: u32) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("pushy_internal.log_{part} was rewritten"),
    )
    .hint("The event log is read again; nothing is to be gained by VACUUM FULL of it.")
}
