//! Transactions that make a row ready: somebody enqueues, the scheduler promotes.

use crate::world::{Holder, Row, World, ROWS};
use crate::Fault;

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
