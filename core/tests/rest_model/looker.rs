//! jobs_wait: does the queue rest, is nobody waiting, does it still rest; else, is anything in the table.

use crate::world::{Row, World, NOTHING, ROWS};
use crate::{Fault, Rules};

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Looker {
    at: At,
    looks: u8,
    /// Rows that have been unfinished since the look began, and of which somebody could know.
    owed: [bool; ROWS],
    /// `times_passed_over` when the look began.
    times: u8,
    /// The answer of the question asked first: the number of permits.
    rest: u8,
    /// Of the question being asked.
    permits: u8,
    second: bool,
    found: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum At {
    Begin,
    Times,
    Untold,
    SweepRequested,
    Sweeping,
    Permits,
    Running,
    Announcing,
    Low,
    PassedOver,
    PermitsAgain,
    Waiting,
    Table,
    Mark,
}

impl Looker {
    pub fn new() -> Looker {
        Looker {
            at: At::Begin,
            looks: 0,
            owed: [false; ROWS],
            times: 0,
            rest: 0,
            permits: 0,
            second: false,
            found: false,
        }
    }

    pub fn forget_done(&mut self, rows: &[Row; ROWS]) {
        for (owed, row) in self.owed.iter_mut().zip(rows) {
            *owed &= *row != Row::Done;
        }
    }

    /// At rest, whatever was found.
    fn over(&self) -> Looker {
        Looker {
            looks: self.looks,
            ..Looker::new()
        }
    }
}

impl World {
    pub fn step_looker(&self, rules: &Rules, visit: &mut impl FnMut(World)) {
        let fault = rules.fault;
        let mut next = *self;
        let me = &mut next.looker;
        // The next question if the answer is that it may rest, else the table.
        let go_on = |rests: bool, to: At| if rests { to } else { At::Table };
        match me.at {
            At::Begin => {
                if me.looks == rules.looks() {
                    return;
                }
                me.looks += 1;
                for row in 0..ROWS {
                    me.owed[row] = self.unfinished(row) && (row != 2 || self.silent.is_known());
                }
                me.at = At::Times;
            }
            At::Times => {
                me.times = self.passed_over;
                me.at = if fault == Some(Fault::AsksLate) {
                    At::Waiting
                } else {
                    At::Untold
                };
            }
            At::Untold => {
                let rests = !self.beyond && !self.untold || fault == Some(Fault::IgnoresUntold);
                me.at = go_on(rests, At::SweepRequested);
            }
            At::SweepRequested => me.at = go_on(!self.sweep_requested, At::Sweeping),
            At::Sweeping => me.at = go_on(!self.sweeping, At::Permits),
            At::Permits => {
                me.permits = self.permits;
                me.at = At::Running;
            }
            At::Running => me.at = go_on(self.running == 0, At::Announcing),
            At::Announcing => me.at = go_on(self.announcing == 0, At::Low),
            At::Low => me.at = go_on(self.low == NOTHING, At::PassedOver),
            At::PassedOver => {
                me.at = go_on(self.passed_over == self.passed_over_gone, At::PermitsAgain);
            }
            At::PermitsAgain => {
                let ignores = fault == Some(Fault::IgnoresPermits);
                let rests = ignores || self.permits == me.permits;
                if me.second {
                    if rests && (ignores || me.permits == me.rest || fault == Some(Fault::AsksLate))
                    {
                        next.told_nothing();
                        return visit(next);
                    }
                    me.at = At::Table;
                } else {
                    me.rest = me.permits;
                    me.at = go_on(rests, At::Waiting);
                }
            }
            At::Waiting => {
                me.second = true;
                if self.rows.contains(&Row::Waiting) {
                    *me = me.over();
                } else if fault == Some(Fault::AsksOnce) {
                    next.told_nothing();
                } else {
                    me.at = At::Untold;
                }
            }
            At::Table => {
                me.found = (0..ROWS).any(|row| self.unfinished(row));
                me.at = At::Mark;
            }
            At::Mark => {
                if me.found {
                    *me = me.over();
                } else {
                    let times = if fault == Some(Fault::CountsPassedOverLate) {
                        self.passed_over
                    } else {
                        me.times
                    };
                    next.passed_over_gone = next.passed_over_gone.max(times);
                    next.told_nothing();
                }
            }
        }
        visit(next);
    }

    fn told_nothing(&mut self) {
        self.missed_a_job |= self.looker.owed.contains(&true);
        self.looker = self.looker.over();
    }
}
