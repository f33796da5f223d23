//! An executor: each step is one store, or what a lock or a snapshot makes one.

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
