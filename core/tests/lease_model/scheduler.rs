//! scheduler: comes when a lease is over, and charges the attempt; and who cancels the job.

use crate::world::{
    Canceller, NextEnd, Scheduler, State, World, CANCELLER, MAX_GIVE_BACKS, NEVER, NOBODY,
    NO_TOKEN, SCHEDULER,
};
use crate::{Case, Fault, Rules};

impl World {
    pub fn step_canceller(&self, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        match self.canceller {
            Canceller::Idle => {
                let was = self.row.state;
                if self.locked_by != NOBODY || !matches!(was, State::Ready | State::Leased) {
                    return;
                }
                next.locked_by = CANCELLER;
                next.canceller = Canceller::Locked { was };
            }
            Canceller::Locked { was } => {
                next.locked_by = NOBODY;
                next.canceller = Canceller::Undone { was };
                visit(next);
                next.canceller = Canceller::Done;
                next.row.state = State::Cancelled;
                next.was_cancelled = true;
                if rules != Some(Fault::CancelLeavesToken) {
                    next.row.token = NO_TOKEN;
                }
            }
            Canceller::Undone { was } => {
                next.canceller = Canceller::Done;
                next.announced |= was == State::Ready && rules != Some(Fault::SilentCancelRollback);
            }
            Canceller::Done => return,
        }
        visit(next);
    }

    pub fn step_scheduler(&self, case: Case, rules: Rules, visit: &mut dyn FnMut(World)) {
        let mut next = *self;
        let late = rules == Some(Fault::TakesLate);
        let after = match rules {
            Some(Fault::ForgetsNext) => NextEnd::Forgotten,
            _ => NextEnd::Read,
        };
        match self.scheduler {
            Scheduler::Sleeps { wake_at } => {
                if self.ends.min(wake_at) > self.now {
                    // An end that is announced and still to come is kept in mind.
                    if self.ends == NEVER || late {
                        return;
                    }
                    next.ends = NEVER;
                    next.scheduler = Scheduler::Sleeps {
                        wake_at: wake_at.min(self.ends),
                    };
                } else {
                    let all = self.ends == 0 || wake_at == 0;
                    next.scheduler = Scheduler::Woke { all };
                    if !late {
                        next.ends = NEVER;
                    }
                }
            }
            Scheduler::Woke { all: true } => {
                let is_later = self.row.state == State::Leased && self.row.said_at > self.now;
                next.scheduler = Scheduler::Woke { all: false };
                if is_later && !case.bound && rules != Some(Fault::KeepsFuture) {
                    if self.locked_by == NOBODY {
                        let length = self.row.until.saturating_sub(self.row.said_at);
                        next.row.until = self.now + length;
                        next.row.said_at = self.now;
                        next.promised = next.row.until;
                    } else if rules != Some(Fault::ForgetsLockedFuture) {
                        next.scheduler = Scheduler::Plans(NextEnd::ComeBackToAll);
                    }
                }
            }
            Scheduler::Woke { all: false } => {
                next.scheduler = Scheduler::Read {
                    over: self.is_over(case, &self.row),
                };
            }
            Scheduler::Read { over: false } => next.scheduler = Scheduler::Plans(after),
            Scheduler::Read { over: true } => {
                let blindly =
                    rules == Some(Fault::ExpiresBlindly) && self.row.state == State::Leased;
                next.scheduler = if self.locked_by != NOBODY {
                    Scheduler::Plans(match rules {
                        Some(Fault::ForgetsLocked) => NextEnd::Forgotten,
                        _ => NextEnd::ComeBack,
                    })
                } else if blindly || self.is_over(case, &self.row) {
                    next.locked_by = SCHEDULER;
                    Scheduler::Locked
                } else {
                    Scheduler::Plans(after)
                };
            }
            Scheduler::Locked => {
                next.locked_by = NOBODY;
                let lives = self.open >> self.row.worker & 1 == 1 && self.crashes == case.crashes;
                next.broken |= if case.bound {
                    lives
                } else {
                    self.promised > self.now
                };
                let is_old = case.bound && self.row.life != self.crashes;
                let may_give_back =
                    self.row.give_backs < MAX_GIVE_BACKS || rules == Some(Fault::GivesBackForFree);
                if is_old && may_give_back {
                    next.give_back();
                } else {
                    next.charge();
                }
                next.scheduler = Scheduler::Expired;
            }
            Scheduler::Expired => {
                let silent = rules == Some(Fault::SilentReturn);
                next.announced |= self.row.state == State::Ready && !silent;
                next.scheduler = Scheduler::Plans(after);
            }
            Scheduler::Plans(next_end) => {
                let is_over = self.is_over(case, &self.row);
                let wake_at = match next_end {
                    NextEnd::Read if is_over => self.now,
                    NextEnd::Read if self.row.state == State::Leased => self.row.until,
                    NextEnd::Read | NextEnd::Forgotten => NEVER,
                    NextEnd::ComeBack => self.now,
                    NextEnd::ComeBackToAll => 0,
                };
                next.scheduler = if late {
                    Scheduler::Takes { wake_at }
                } else {
                    Scheduler::Sleeps { wake_at }
                };
            }
            Scheduler::Takes { wake_at } => {
                next.ends = NEVER;
                next.scheduler = Scheduler::Sleeps { wake_at };
            }
        }
        visit(next);
    }
}
