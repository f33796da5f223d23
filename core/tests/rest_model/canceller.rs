//! A session that cancels a job, and may think better of it.

use crate::world::{Holder, Row, World, ROWS};

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
