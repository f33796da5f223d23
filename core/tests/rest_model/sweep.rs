//! What comes without an announcement, and the scheduler that finds it.

use crate::world::{Row, World, NOTHING, ROWS};
use crate::Fault;

/// COMMIT PREPARED: the row is there, then the sweep is asked for, or the row announced that was noted when it was prepared, and only then
/// does anybody know of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Silent {
    at: u8,
}

impl Silent {
    pub fn new() -> Silent {
        Silent { at: 0 }
    }

    /// Its client has been answered; of an untold one everybody sees the rows.
    pub fn is_known(&self) -> bool {
        self.at >= 2
    }
}

impl World {
    pub fn step_silent(&self, is_noted: bool, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        match self.silent.at {
            0 => next.rows[2] = Row::Ready,
            1 => next.tell(is_noted),
            _ => return,
        }
        next.silent.at += 1;
        visit(next);
    }
}

impl World {
    fn tell(&mut self, is_noted: bool) {
        if is_noted {
            self.announce(2);
        } else {
            self.sweep_requested = true;
        }
    }

    /// PREPARE is noted; then the row is there, and only the launcher's look at what was noted tells anybody.
    pub fn step_untold(&self, is_noted: bool, fault: Option<Fault>, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        let early = fault == Some(Fault::ForgetsEarly);
        match self.silent.at {
            0 => next.untold = true,
            1 => next.rows[2] = Row::Ready,
            2 if early => next.untold = false,
            3 if early => next.tell(is_noted),
            2 => next.tell(is_noted),
            3 => next.untold = false,
            _ => return,
        }
        next.silent.at += 1;
        visit(next);
    }

    /// PREPARE finds no place, which is counted; then the row is there.
    pub fn step_placeless(&self, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        match self.silent.at {
            0 => next.beyond = true,
            1 => next.rows[2] = Row::Ready,
            _ => return,
        }
        next.silent.at += 1;
        visit(next);
    }

    /// The scheduler notes what is still prepared of those, and asks for the sweep that finds the others; the launcher looks at what was
    /// noted.
    pub fn step_inspector(&self, fault: Option<Fault>, visit: &mut impl FnMut(World)) {
        let mut next = *self;
        let early = fault == Some(Fault::SettlesEarly);
        match self.inspector {
            0 if !self.beyond => return,
            0 => next.untold = self.rows[2] == Row::Unborn,
            1 if early => next.beyond = false,
            2 if early => next.sweep_requested = true,
            1 => next.sweep_requested = true,
            2 => next.beyond = false,
            3 if !self.untold || self.rows[2] == Row::Unborn => return,
            3 => next.sweep_requested = true,
            4 => next.untold = false,
            _ => return,
        }
        next.inspector += 1;
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
