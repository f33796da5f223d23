//! Those who change the table: each step is one store, or what a lock or a snapshot makes one.

use crate::world::{Holder, Row, World, NOTHING, ROWS};
use crate::{Fault, Rules};

/// A claim, its jobs and its end.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Executor {
    at: Claim,
    claims: u8,
    /// What the watermark was.
    from: u8,
    passed_over: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Claim {
    Permit,
    Count,
    Take,
    Lock,
    Tell,
    End,
    PutBack,
    Return,
    TellLate,
}

impl Executor {
    pub fn new() -> Executor {
        Executor {
            at: Claim::Permit,
            claims: 0,
            from: NOTHING,
            passed_over: false,
        }
    }
}

impl World {
    pub fn step_executor(&self, rules: &Rules, visit: &mut impl FnMut(World)) {
        let fault = rules.fault;
        let mut next = *self;
        let me = &mut next.executor;
        match me.at {
            Claim::Permit => {
                if me.claims == rules.claims() || self.low == NOTHING {
                    return;
                }
                me.claims += 1;
                me.at = if fault == Some(Fault::CountsPermitLate) {
                    Claim::Take
                } else {
                    Claim::Count
                };
                next.running += 1;
            }
            Claim::Count => {
                me.at = if fault == Some(Fault::CountsPermitLate) {
                    Claim::Lock
                } else {
                    Claim::Take
                };
                next.permits += 1;
            }
            Claim::Take => {
                me.from = self.low;
                me.at = if fault == Some(Fault::CountsPermitLate) {
                    Claim::Count
                } else {
                    Claim::Lock
                };
                next.low = NOTHING;
            }
            Claim::Lock => {
                for row in usize::from(me.from)..ROWS {
                    if self.rows[row] != Row::Ready {
                        continue;
                    }
                    if self.holders[row] == Holder::Nobody {
                        next.holders[row] = Holder::Executor;
                    } else {
                        me.passed_over = true;
                    }
                }
                me.at = Claim::Tell;
            }
            Claim::Tell => {
                if fault != Some(Fault::PassesOverLate) {
                    let tells = me.passed_over && fault != Some(Fault::PassesOverInSilence);
                    me.passed_over = false;
                    next.passed_over += u8::from(tells);
                }
                me.at = Claim::End;
            }
            Claim::End => return self.end_claim(fault, visit),
            Claim::PutBack => {
                let from = me.from;
                me.at = if fault == Some(Fault::ReturnsPermitEarly) {
                    Claim::Permit
                } else {
                    Claim::Return
                };
                me.from = NOTHING;
                next.low = next.low.min(from);
            }
            Claim::Return => {
                me.at = match fault {
                    Some(Fault::PassesOverLate) if me.passed_over => Claim::TellLate,
                    Some(Fault::ReturnsPermitEarly) if me.from != NOTHING => Claim::PutBack,
                    _ => Claim::Permit,
                };
                next.running -= 1;
            }
            Claim::TellLate => {
                me.passed_over = false;
                me.at = Claim::Permit;
                next.passed_over += 1;
            }
        }
        visit(next);
    }

    /// The batch commits, its jobs done or to be tried again, or it is rolled back.
    fn end_claim(&self, fault: Option<Fault>, visit: &mut impl FnMut(World)) {
        let held = |row: &usize| self.holders[*row] == Holder::Executor;
        for outcome in [Row::Done, Row::Waiting, Row::Ready] {
            let mut next = *self;
            for row in (0..ROWS).filter(held) {
                next.rows[row] = outcome;
                next.holders[row] = Holder::Nobody;
            }
            let rolled_back = outcome == Row::Ready;
            if !rolled_back {
                next.executor.from = NOTHING;
            }
            next.executor.at = if rolled_back && fault != Some(Fault::ReturnsPermitEarly) {
                Claim::PutBack
            } else {
                Claim::Return
            };
            visit(next);
        }
    }
}

/// A transaction that makes a row ready: it is new, or its time has come.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mover {
    at: Moving,
    row: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Moving {
    Begin,
    /// Before the commit: it says that it will announce.
    Say,
    Commit,
    Announce,
    End,
    Over,
}

impl Mover {
    pub fn new() -> Mover {
        Mover {
            at: Moving::Begin,
            row: 0,
        }
    }
}

impl World {
    pub fn step_enqueuer(&self, fault: Option<Fault>, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        if self.enqueuer.at == Moving::Begin {
            next.enqueuer.row = 1;
            next.enqueuer.at = Moving::Say;
        } else if !next.step_mover(fault, |world| &mut world.enqueuer) {
            return;
        }
        visit(next);
    }

    /// The scheduler, or a session that tries a job again now.
    pub fn step_promoter(&self, fault: Option<Fault>, visit: &mut impl FnMut(World)) {
        if self.promoter.at != Moving::Begin {
            let mut next = *self;
            if next.step_mover(fault, |world| &mut world.promoter) {
                visit(next);
            }
            return;
        }
        for row in 0..ROWS {
            if self.rows[row] == Row::Waiting && self.holders[row] == Holder::Nobody {
                let mut next = *self;
                next.holders[row] = Holder::Mover;
                next.promoter.row = row as u8;
                next.promoter.at = Moving::Say;
                visit(next);
            }
        }
    }

    fn step_mover(&mut self, fault: Option<Fault>, me: fn(&mut World) -> &mut Mover) -> bool {
        let row = usize::from(me(self).row);
        let early = fault == Some(Fault::EndsBeforeAnnouncing);
        let says = u8::from(fault != Some(Fault::CommitsInSilence));
        me(self).at = match me(self).at {
            Moving::Say => {
                self.announcing += says;
                Moving::Commit
            }
            Moving::Commit => {
                self.rows[row] = Row::Ready;
                self.holders[row] = Holder::Nobody;
                if early {
                    Moving::End
                } else {
                    Moving::Announce
                }
            }
            Moving::Announce => {
                self.announce(row);
                if early {
                    Moving::Over
                } else {
                    Moving::End
                }
            }
            Moving::End => {
                self.announcing -= says;
                if early {
                    Moving::Announce
                } else {
                    Moving::Over
                }
            }
            Moving::Begin | Moving::Over => return false,
        };
        true
    }
}

/// A session that locks a ready job to cancel it, and then may roll back.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Canceller {
    at: Cancel,
    row: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Cancel {
    Lock,
    End,
    Announce,
    Over,
}

impl Canceller {
    pub fn new() -> Canceller {
        Canceller {
            at: Cancel::Lock,
            row: 0,
        }
    }
}

impl World {
    pub fn step_canceller(&self, visit: &mut impl FnMut(World)) {
        let row = usize::from(self.canceller.row);
        match self.canceller.at {
            Cancel::Lock => {
                for row in 0..ROWS {
                    if self.rows[row] == Row::Ready && self.holders[row] == Holder::Nobody {
                        let mut next = *self;
                        next.holders[row] = Holder::Canceller;
                        next.canceller.row = row as u8;
                        next.canceller.at = Cancel::End;
                        visit(next);
                    }
                }
            }
            Cancel::End => {
                for outcome in [Row::Done, Row::Ready] {
                    let mut next = *self;
                    next.holders[row] = Holder::Nobody;
                    next.rows[row] = outcome;
                    next.canceller.at = Cancel::Announce;
                    visit(next);
                }
            }
            Cancel::Announce => {
                let mut next = *self;
                next.announce(row);
                next.canceller.at = Cancel::Over;
                visit(next);
            }
            Cancel::Over => {}
        }
    }
}

/// COMMIT PREPARED: the row is there, then the sweep is asked for, and only then does anybody know of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Silent {
    at: u8,
}

impl Silent {
    pub fn new() -> Silent {
        Silent { at: 0 }
    }

    /// Its client has been answered.
    pub fn is_known(&self) -> bool {
        self.at == 2
    }
}

impl World {
    pub fn step_silent(&self, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        match self.silent.at {
            0 => next.rows[2] = Row::Ready,
            1 => next.sweep_requested = true,
            _ => return,
        }
        next.silent.at += 1;
        visit(next);
    }
}

/// The sweep: once for each request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheduler {
    at: Sweep,
    sweeps: bool,
    first: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Sweep {
    Begin,
    Take,
    Look,
    Announce,
    End,
}

impl Scheduler {
    pub fn new() -> Scheduler {
        Scheduler {
            at: Sweep::Begin,
            sweeps: false,
            first: NOTHING,
        }
    }
}

impl World {
    pub fn step_scheduler(&self, fault: Option<Fault>, visit: &mut impl FnMut(World)) {
        let late = fault == Some(Fault::SweepsLate);
        let mut next = *self;
        let me = &mut next.scheduler;
        match me.at {
            Sweep::Begin if late => {
                if !self.sweep_requested {
                    return;
                }
                me.sweeps = true;
                me.at = Sweep::Take;
                next.sweep_requested = false;
            }
            Sweep::Begin => {
                if !self.sweep_requested {
                    return;
                }
                me.at = Sweep::Take;
                next.sweeping = true;
            }
            Sweep::Take if late => {
                me.at = Sweep::Look;
                next.sweeping = true;
            }
            Sweep::Take => {
                me.sweeps = self.sweep_requested;
                me.at = Sweep::Look;
                next.sweep_requested = false;
            }
            Sweep::Look => {
                let first = (0..ROWS).find(|row| self.rows[*row] == Row::Ready);
                me.first = first.filter(|_| me.sweeps).map_or(NOTHING, |row| row as u8);
                me.at = Sweep::Announce;
            }
            Sweep::Announce => {
                let first = me.first;
                me.first = NOTHING;
                me.at = Sweep::End;
                next.low = next.low.min(first);
            }
            Sweep::End => {
                me.sweeps = false;
                me.at = Sweep::Begin;
                next.sweeping = false;
            }
        }
        visit(next);
    }
}
