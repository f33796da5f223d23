//! Drawing numbers: from memory, and every so many of them by setting the sequence ahead.

use std::sync::atomic::Ordering;

use super::counted::{Numbers, UNSEEN};
use super::here;
use super::sequences::{Sequence, FURTHEST};
use crate::errors::Result;
use crate::params;
use crate::pg::spi::{self, Plan};
use crate::pg::{identity, object_lock, sequence, transaction};

/// What is numbered, and how.
pub struct Numbered {
    pub(super) sequence: &'static Sequence,
    kept: fn() -> Result<i64>,
}

/// A row that was loaded leaves numbers for others, whatever it says.
const HIGHEST_BELIEVED: i64 = i64::MAX / 2;

/// What a query of the highest number says, of all that is committed by now.
pub fn highest_in(plan: &Plan) -> Result<i64> {
    Ok(transaction::with_latest_snapshot(|| {
        spi::connect(|spi| spi.run_in_active_snapshot(plan, &[]).row(0).i64(1))
    }))
}

impl Numbered {
    /// `kept`: the highest number that a table holds; as the extension's owner.
    pub const fn new(sequence: &'static Sequence, kept: fn() -> Result<i64>) -> Self {
        Self { sequence, kept }
    }

    pub(super) fn highest_kept(&self) -> Result<i64> {
        Ok((self.kept)()?.min(HIGHEST_BELIEVED))
    }

    /// The first of so many numbers that follow one another.
    pub fn draw(&self, count: usize) -> Result<i64> {
        let count = count as i64;
        let Some(slot) = here() else {
            return self.draw_from_sequence(count);
        };
        let numbers = (self.sequence.of)(slot);
        // Read before, because what is drawn must be of what was reserved by then.
        let reserved = numbers.reserved.load(Ordering::SeqCst);
        if numbers.highest() + count <= reserved {
            let last = numbers.highest.fetch_add(count, Ordering::SeqCst) + count;
            if last <= reserved {
                return Ok(last - count + 1);
            }
        }
        self.reserve(numbers, count)
    }

    /// A number of what is declared, that nothing holds: `is_held` asks the tables. As the extension's owner.
    pub fn draw_free(&self, is_held: &Plan) -> Result<i32> {
        loop {
            let drawn = self.sequence.within(self.draw(1)?) as i32;
            let is_held = transaction::with_latest_snapshot(|| {
                spi::connect(|spi| {
                    let held = spi.run_in_active_snapshot(is_held, params![drawn]);
                    held.row(0).bool(1)
                })
            });
            if !is_held {
                return Ok(drawn);
            }
        }
    }

    /// Sets the sequence ahead, one process at a time.
    #[cold]
    fn reserve(&self, numbers: &Numbers, count: i64) -> Result<i64> {
        identity::as_owner(|| {
            let relation = identity::expect_relation(self.sequence.name)?;
            sequence::lock(relation)?;
            object_lock::briefly(relation, || {
                let stored = sequence::last(relation);
                let reserved = numbers.reserved.load(Ordering::SeqCst);
                let is_as_left = reserved > UNSEEN && stored == self.sequence.within(reserved);
                if !is_as_left {
                    self.find_out(numbers, reserved, stored)?;
                }
                self.begin(numbers);
                let last = numbers.highest.fetch_add(count, Ordering::SeqCst) + count;
                if last > reserved || !is_as_left {
                    let ahead = last + self.sequence.ahead;
                    sequence::set(relation, self.sequence.within(ahead));
                    numbers.reserved.store(ahead, Ordering::SeqCst);
                }
                Ok(last - count + 1)
            })
        })
    }

    /// Without the preload nothing is in memory.
    #[cold]
    fn draw_from_sequence(&self, count: i64) -> Result<i64> {
        identity::as_owner(|| {
            let relation = identity::expect_relation(self.sequence.name)?;
            sequence::lock(relation)?;
            object_lock::briefly(relation, || {
                let kept = self.highest_kept()?;
                let stored = sequence::last(relation);
                let before = kept.max(if stored < FURTHEST { stored } else { 0 });
                sequence::set(relation, self.sequence.within(before + count));
                Ok(before + 1)
            })
        })
    }
}
