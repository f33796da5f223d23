//! All that the processes share, and where each of them stands.

use crate::canceller::Canceller;
use crate::executor::Executor;
use crate::looker::Looker;
use crate::mover::Mover;
use crate::sweep::{Scheduler, Silent};
use crate::{Others, Rules};

/// Row 0 is there from the start, row 1 is enqueued, row 2 comes without an announcement (COMMIT PREPARED).
pub const ROWS: usize = 3;
/// A watermark that says: nothing.
pub const NOTHING: u8 = 9;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Row {
    /// Nobody but its writer can see it.
    Unborn,
    Ready,
    /// For its next attempt.
    Waiting,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Holder {
    Nobody,
    Executor,
    Canceller,
    Mover,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct World {
    pub rows: [Row; ROWS],
    pub holders: [Holder; ROWS],
    pub low: u8,
    pub running: u8,
    pub permits: u8,
    pub announcing: u8,
    pub passed_over: u8,
    pub passed_over_gone: u8,
    pub sweep_requested: bool,
    pub sweeping: bool,
    pub untold: bool,
    /// One found no place, and nobody has looked for it yet.
    pub beyond: bool,
    /// How far the scheduler's look for it, and the launcher's at what that has noted, have come.
    pub inspector: u8,
    pub executor: Executor,
    pub enqueuer: Mover,
    pub promoter: Mover,
    pub canceller: Canceller,
    pub silent: Silent,
    pub scheduler: Scheduler,
    pub looker: Looker,
    pub missed_a_job: bool,
}

impl World {
    pub fn new() -> World {
        let mut rows = [Row::Unborn; ROWS];
        rows[0] = Row::Ready;
        World {
            rows,
            holders: [Holder::Nobody; ROWS],
            low: 0,
            running: 0,
            permits: 0,
            announcing: 0,
            passed_over: 0,
            passed_over_gone: 0,
            sweep_requested: false,
            sweeping: false,
            untold: false,
            beyond: false,
            inspector: 0,
            executor: Executor::new(),
            enqueuer: Mover::new(),
            promoter: Mover::new(),
            canceller: Canceller::new(),
            silent: Silent::new(),
            scheduler: Scheduler::new(),
            looker: Looker::new(),
            missed_a_job: false,
        }
    }

    pub fn successors(&self, rules: &Rules, visit: &mut impl FnMut(World)) {
        let mut visit = |mut next: World| {
            next.looker.forget_done(&next.rows);
            visit(next);
        };
        self.step_executor(rules, &mut visit);
        self.step_looker(rules, &mut visit);
        match rules.others {
            Others::Movers => {
                self.step_enqueuer(rules.fault, &mut visit);
                self.step_promoter(rules.fault, &mut visit);
            }
            Others::Canceller => {
                self.step_enqueuer(rules.fault, &mut visit);
                self.step_canceller(&mut visit);
            }
            Others::Sweep => {
                self.step_silent(false, &mut visit);
                self.step_scheduler(rules.fault, &mut visit);
            }
            Others::Noted => self.step_silent(true, &mut visit),
            Others::Untold => {
                self.step_untold(false, rules.fault, &mut visit);
                self.step_scheduler(rules.fault, &mut visit);
            }
            Others::UntoldNoted => self.step_untold(true, rules.fault, &mut visit),
            Others::Placeless => {
                self.step_placeless(&mut visit);
                self.step_inspector(rules.fault, &mut visit);
                self.step_scheduler(rules.fault, &mut visit);
            }
        }
    }

    /// Rows that everybody sees, and that are not done.
    pub fn unfinished(&self, row: usize) -> bool {
        matches!(self.rows[row], Row::Ready | Row::Waiting)
    }

    pub fn announce(&mut self, position: usize) {
        self.low = self.low.min(position as u8);
    }
}
