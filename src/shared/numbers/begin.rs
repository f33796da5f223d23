//! The first number that was given out here, for who loads a dump: numbers below are free of ours, and stay so.

use std::sync::atomic::Ordering;

use super::counted::{Numbers, JUST_NOW, NEVER, UNKNOWN};
use super::draw::Numbered;
use super::follow::is_any_prepared;
use super::here;
use crate::errors::Result;
use crate::pg::{identity, object_lock, sequence};

impl Numbered {
    /// Numbers are given out from now on, or were before the server started. Who loads passes over the number of a row first and looks
    /// here then, so in between it is to wait: what was passed over is below. With the lock of `reserve`.
    pub(super) fn begin(&self, numbers: &Numbers) {
        let known = numbers.drawn_from.load(Ordering::SeqCst);
        if !matches!(known, UNKNOWN | NEVER) {
            return;
        }
        let kept_in = self.sequence.first.and_then(identity::internal_relation);
        let before = match kept_in {
            Some(relation) if known == UNKNOWN => sequence::last(relation),
            _ => 0,
        };
        numbers.drawn_from.store(JUST_NOW, Ordering::SeqCst);
        let next = numbers.highest() + 1;
        // Not believed where somebody has set it behind.
        let first = if before > 0 { before.min(next) } else { next };
        numbers.drawn_from.store(first, Ordering::SeqCst);
        if let Some(relation) = kept_in.filter(|_| before == 0) {
            sequence::set(relation, first);
        }
    }

    /// From which number on they may have been given out here, or `NEVER`; and the highest that anything has. `has_any`: whether anything
    /// has one, as the tables say.
    pub fn drawn_from(&self, has_any: fn() -> Result<bool>) -> Result<(i64, i64)> {
        let Some(numbers) = here().map(self.sequence.of) else {
            return identity::as_owner(|| {
                let kept = self.highest_kept()?;
                Ok((if has_any()? { kept + 1 } else { NEVER }, kept))
            });
        };
        let known = numbers.drawn_from.load(Ordering::SeqCst);
        if known > UNKNOWN {
            return Ok((known, numbers.highest()));
        }
        let known = self.find_first(numbers, has_any)?;
        Ok((known, numbers.highest()))
    }

    #[cold]
    fn find_first(&self, numbers: &Numbers, has_any: fn() -> Result<bool>) -> Result<i64> {
        identity::as_owner(|| {
            let relation = identity::expect_relation(self.sequence.name)?;
            object_lock::briefly(relation, || {
                if numbers.drawn_from.load(Ordering::SeqCst) == UNKNOWN {
                    let kept_in = self.sequence.first.and_then(identity::internal_relation);
                    let was_begun = kept_in.is_some_and(|relation| sequence::last(relation) > 0);
                    let is_begun = was_begun || is_any_prepared() || has_any()?;
                    numbers.pass_over(self.highest_kept()?);
                    if is_begun {
                        self.begin(numbers);
                    } else {
                        numbers.drawn_from.store(NEVER, Ordering::SeqCst);
                    }
                }
                Ok(numbers.drawn_from.load(Ordering::SeqCst))
            })
        })
    }
}
