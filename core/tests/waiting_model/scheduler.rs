//! The scheduler: its rounds, and what may happen to it in the midst of one.

use crate::world::{Row, World, LAST, NEVER, ROWS, TIMES};
use crate::{Fault, Rules};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheduler {
    at: At,
    /// When it wakes by itself.
    alarm: u8,
    /// What it took of `due` and `waiting_from`.
    due: u8,
    from: u8,
    /// The rows that its snapshot sees waiting, a bit each.
    seen: u8,
    /// Rows made ready or passed over in this round, in the order of times and then of numbers.
    behind: Option<(u8, u8)>,
    /// The time for which the first row waits.
    first: u8,
    /// The counter of definitions when the queues were read, and whether that of the rows was among them.
    read_at: u8,
    knows_queue: bool,
    /// How often it has read them in this round, before it looked for due rows.
    reads: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Sleep,
    Refresh,
    Sweep,
    TakeDue,
    TakeWaiting,
    Snapshot,
    Promote,
    Look,
    PutBackWaiting,
    PutBackDue,
    SetAlarm,
    /// The latch is reset too late.
    Reset,
}

impl Scheduler {
    pub fn new(knows_queue: bool) -> Scheduler {
        Scheduler {
            at: At::Sleep,
            alarm: 0,
            due: NEVER,
            from: NEVER,
            seen: 0,
            behind: None,
            first: NEVER,
            read_at: 0,
            knows_queue,
            reads: 0,
        }
    }

    pub fn has_read_twice(&self) -> bool {
        self.reads > 1
    }

    pub fn wakes_by(&self, time: u8) -> bool {
        self.alarm <= time
    }

    pub fn sleeps(&self, world: &World) -> bool {
        self.at == At::Sleep && !world.latch && self.alarm > world.clock
    }

    fn forgets_its_round(&mut self) {
        *self = Scheduler {
            at: self.at,
            alarm: self.alarm,
            read_at: self.read_at,
            ..Scheduler::new(self.knows_queue)
        };
    }
}

fn waiting(world: &World) -> u8 {
    (0..ROWS)
        .filter(|row| world.waits(*row))
        .fold(0, |seen, row| seen | 1 << row)
}

impl World {
    pub fn step_scheduler(&self, rules: &Rules, visit: &mut impl FnMut(World)) {
        if self.scheduler.sleeps(self) {
            return;
        }
        let mut next = *self;
        let me = self.scheduler;
        let late = rules.breaks(Fault::SnapshotBeforeTake);
        next.scheduler.at = match me.at {
            At::Sleep => {
                if !rules.breaks(Fault::ResetsLate) {
                    next.latch = false;
                }
                At::Refresh
            }
            At::Refresh => {
                let has_changed = me.read_at != self.definitions;
                if has_changed {
                    // Reading rests.
                    let mut rests = *self;
                    rests.scheduler.at = At::TakeDue;
                    visit(rests);
                    next.scheduler.read_at = self.definitions;
                    next.scheduler.knows_queue = self.has_queue;
                    next.scheduler.reads = me.reads + 1;
                }
                if has_changed && rules.breaks(Fault::ReadsUntilQuiet) {
                    At::Refresh
                } else {
                    At::TakeDue
                }
            }
            At::Sweep => {
                if self.sweep_requested {
                    if self.clock < LAST {
                        let mut rests = *self;
                        if !rules.breaks(Fault::RestsForEver) {
                            rests.announce_due(self.clock + 1);
                        }
                        rests.scheduler.at = At::SetAlarm;
                        visit(rests);
                    }
                    next.sweep_requested = false;
                    if me.knows_queue || !rules.breaks(Fault::SweepsKnownOnly) {
                        next.announce_silent();
                    }
                    next.due = 0;
                    if !rules.breaks(Fault::SweepsReadyOnly) {
                        next.waiting_from = 0;
                    }
                }
                At::SetAlarm
            }
            At::TakeDue => {
                next.scheduler.reads = 0;
                next.scheduler.due = self.due;
                if self.due > self.clock {
                    At::Sweep
                } else {
                    next.due = NEVER;
                    if late {
                        At::Snapshot
                    } else {
                        At::TakeWaiting
                    }
                }
            }
            At::TakeWaiting => {
                next.scheduler.from = self.waiting_from;
                next.waiting_from = NEVER;
                if late {
                    At::Promote
                } else {
                    At::Snapshot
                }
            }
            At::Snapshot => {
                next.scheduler.seen = waiting(self);
                if late {
                    At::TakeWaiting
                } else {
                    At::Promote
                }
            }
            At::Promote => next.promote_one(rules),
            At::Look => {
                let seen = if late { me.seen } else { waiting(self) };
                let from = match me.behind {
                    Some((time, _)) if rules.breaks(Fault::LooksBehindLast) => time + 1,
                    _ => me.from,
                };
                let rows = (0..ROWS).filter(|row| seen >> row & 1 == 1 && self.waits(*row));
                let times = rows.map(|row| TIMES[row]).filter(|time| *time >= from);
                next.scheduler.first = times.min().unwrap_or(NEVER);
                At::PutBackWaiting
            }
            At::PutBackWaiting => {
                if !rules.breaks(Fault::PutsNothingBack) {
                    next.waiting_from = next.waiting_from.min(me.first);
                }
                At::PutBackDue
            }
            At::PutBackDue => {
                // What is due and was not done is locked: soon.
                if me.first != NEVER {
                    next.announce_due(me.first.max(self.clock));
                }
                At::Sweep
            }
            At::SetAlarm => {
                next.scheduler.forgets_its_round();
                next.scheduler.alarm = self.due;
                if rules.breaks(Fault::ResetsLate) {
                    At::Reset
                } else {
                    At::Sleep
                }
            }
            At::Reset => {
                next.latch = false;
                At::Sleep
            }
        };
        visit(next);
    }

    /// A transaction for each row: the next one in order that is due and not locked.
    fn promote_one(&mut self, rules: &Rules) -> At {
        let me = self.scheduler;
        let place = |row: usize| (TIMES[row], row as u8);
        let is_next = |row: &usize| {
            me.seen >> row & 1 == 1
                && self.waits(*row)
                && !self.is_locked(*row)
                && (me.from..=self.clock).contains(&TIMES[*row])
                && me.behind.is_none_or(|behind| place(*row) > behind)
        };
        let Some(row) = (0..ROWS).filter(is_next).min_by_key(|row| place(*row)) else {
            return At::Look;
        };
        let announces = me.knows_queue || !rules.breaks(Fault::AnnouncesKnownOnly);
        self.rows[row] = if announces { Row::Ready } else { Row::Silent };
        self.scheduler.behind = Some(place(row));
        // The next transaction has a snapshot of its own.
        self.scheduler.seen |= waiting(self);
        At::Promote
    }

    fn announce_silent(&mut self) {
        for row in &mut self.rows {
            if *row == Row::Silent {
                *row = Row::Ready;
            }
        }
    }

    /// A round fails, or the scheduler is terminated and another one comes.
    pub fn step_trouble(&self, rules: &Rules, visit: &mut impl FnMut(World)) {
        let me = self.scheduler;
        if self.troubles == 0 {
            return;
        }
        let mut next = World {
            troubles: self.troubles - 1,
            ..*self
        };
        next.scheduler.forgets_its_round();
        next.scheduler.at = At::Sleep;
        if matches!(me.at, At::Promote | At::Look) {
            let mut failed = next;
            if !rules.breaks(Fault::SilentFailure) {
                failed.waiting_from = failed.waiting_from.min(me.from);
            }
            failed.announce_due(me.due);
            failed.scheduler.alarm = self.clock;
            visit(failed);
        }
        if me.at != At::Sleep {
            let mut ended = next;
            if !rules.breaks(Fault::SilentEnd) {
                ended.sweep_requested = true;
                ended.latch = true;
                if !rules.breaks(Fault::EndTrustsSweep) {
                    ended.waiting_from = 0;
                    ended.due = 0;
                }
            }
            ended.scheduler.alarm = ended.due;
            visit(ended);
        }
    }
}
