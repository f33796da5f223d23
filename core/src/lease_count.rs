//! How many jobs of a queue workers outside have leased, in one word of shared memory: a claim of a queue whose leases are limited
//! does not count rows, because beside a transaction that is held open it would meet every lease that was ever settled.
//!
//! Leases are added under the queue's lock, by their commit, before that lock is let go of. They end without it: a commit that ends
//! some asks for the *round* before it begins, and takes them off afterwards if the round is still the same. Who holds the lock alone
//! counts rows where nothing is known, and begins another round with what he has found; whoever ends leases on both sides of that
//! may have been counted or not, and makes the count unknown again. `core/tests/lease_count_model/` walks every interleaving.

/// A round in the upper half, a count or `UNKNOWN` in the lower one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LeaseCount(u64);

const UNKNOWN: u32 = u32::MAX;

impl LeaseCount {
    pub const fn from_u64(word: u64) -> Self {
        Self(word)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    pub const fn of(round: u32, count: Option<u32>) -> Self {
        let count = match count {
            Some(count) => count,
            None => UNKNOWN,
        };
        Self((round as u64) << 32 | count as u64)
    }

    pub const fn round(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// None: rows are to be counted.
    pub const fn known(self) -> Option<u32> {
        match self.0 as u32 {
            UNKNOWN => None,
            count => Some(count),
        }
    }

    /// Nothing is known any more, and who counts just now does not know either.
    #[must_use]
    pub const fn forgotten(self) -> Self {
        Self::of(self.round().wrapping_add(1), None)
    }

    /// A commit has added leases, under the queue's lock.
    #[must_use]
    pub const fn added(self, more: u32) -> Self {
        match self.known() {
            Some(count) => Self::of(self.round(), Some(count.saturating_add(more))),
            None => self,
        }
    }

    /// A commit has ended leases which was about to when it was round `round`.
    #[must_use]
    pub const fn ended(self, less: u32, round: u32) -> Self {
        match self.known() {
            Some(count) if round == self.round() && count >= less => {
                Self::of(round, Some(count - less))
            }
            _ => self.forgotten(),
        }
    }

    /// Who holds the lock alone has counted rows, since this was all that was known.
    #[must_use]
    pub const fn counted(self, count: u32) -> Self {
        Self::of(self.round().wrapping_add(1), Some(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_known_from_when_it_was_counted_until_somebody_doubts_it() {
        let unknown = LeaseCount::of(7, None);
        assert_eq!((unknown.known(), unknown.round()), (None, 7));
        let known = unknown.counted(3);
        assert_eq!((known.known(), known.round()), (Some(3), 8));
        assert_eq!(known.added(2).known(), Some(5));
        assert_eq!(known.ended(3, 8).known(), Some(0));
        assert_eq!(known.ended(1, 7).known(), None);
        assert_eq!(known.ended(4, 8).known(), None);
        assert_eq!(unknown.added(1), unknown);
        assert_ne!(unknown.ended(1, 7).round(), 7);
        assert_ne!(known.forgotten().round(), known.round());
        assert_eq!(LeaseCount::of(u32::MAX, Some(1)).forgotten().round(), 0);
        assert_eq!(LeaseCount::from_u64(known.as_u64()), known);
    }
}
