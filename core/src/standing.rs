//! What the definition of a queue says against its running, in a byte that shared memory has of it.

/// None of it, and the queue may run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing(u8);

impl Standing {
    pub const OPEN: Self = Self(0);
    /// Given up.
    pub const DROPPED: Self = Self(1);
    /// Made by a transaction that has not ended: nobody else sees its row.
    pub const UNBORN: Self = Self(2);
    /// Registered in another database or cluster.
    pub const ELSEWHERE: Self = Self(4);
    pub const PAUSED: Self = Self(8);
    pub const PARKED: Self = Self(16);
    /// It has no handler: its jobs are done by workers outside.
    pub const OUTSIDE: Self = Self(32);

    pub const fn from_u8(bits: u8) -> Self {
        Self(bits)
    }

    pub const fn as_u8(self) -> u8 {
        self.0
    }

    #[must_use]
    pub const fn with(self, more: Self, is_so: bool) -> Self {
        if is_so {
            Self(self.0 | more.0)
        } else {
            self
        }
    }

    pub const fn has(self, one: Self) -> bool {
        self.0 & one.0 != 0
    }

    /// Where it is not, the queue is closed to every executor.
    pub const fn is_open(self) -> bool {
        self.0 == 0
    }

    /// Where there is nothing but this, it is open to who does not mind it.
    pub const fn is_open_but_for(self, one: Self) -> bool {
        self.0 & !one.0 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_keeps_what_stands_against_a_queue() {
        for bits in 0..64 {
            let standing = Standing::from_u8(bits);
            assert_eq!(standing.as_u8(), bits);
            assert_eq!(standing.is_open(), bits == 0);
        }
        let paused = Standing::OPEN.with(Standing::PAUSED, true);
        assert!(paused.has(Standing::PAUSED) && !paused.has(Standing::PARKED));
        assert_eq!(paused.with(Standing::PARKED, false), paused);
    }
}
