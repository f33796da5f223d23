//! Whether a verdict about a channel counts still: rights may have been changed while it was on its way.

use std::hash::{BuildHasher, RandomState};

/// When rights to channels were changed last, counted by their changes: a verdict that was asked for before is none.
pub(super) struct Rights {
    changes: u64,
    /// Of channels by a number of their names, which several may share.
    changed: [u64; 256],
    hasher: RandomState,
}

/// How many changes there had been when somebody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AskedAt(u64);

impl Rights {
    pub(super) fn new() -> Self {
        Self {
            changes: 0,
            changed: [0; 256],
            hasher: RandomState::new(),
        }
    }

    fn place(&self, channel: &str) -> usize {
        (self.hasher.hash_one(channel) % 256) as usize
    }

    pub(super) fn asked_at(&self) -> AskedAt {
        AskedAt(self.changes)
    }

    pub(super) fn change(&mut self, channel: Option<&str>) {
        self.changes += 1;
        match channel {
            Some(channel) => {
                let at = self.place(channel);
                self.changed
                    .get_mut(at)
                    .into_iter()
                    .for_each(|changed| *changed = self.changes);
            }
            None => self.changed = [self.changes; 256],
        }
    }

    /// A verdict that was asked for then counts still.
    pub(super) fn stand(&self, channel: &str, asked_at: AskedAt) -> bool {
        let changed = self.changed.get(self.place(channel));
        changed.is_some_and(|changed| *changed <= asked_at.0)
    }
}
