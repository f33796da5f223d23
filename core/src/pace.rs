//! How long a worker sleeps until something is due.

/// So long (µs) it sleeps at least while the same thing stays due.
const STUCK_US: i64 = 1_000_000;

/// Whether the same time was due in the round before, and passed by then. Whatever is due may be held by somebody, and what
/// forgets that would come back at once, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    overdue: Option<i64>,
}

impl Pace {
    /// How long (µs) to sleep at `now` after a round that left this time as the next at which something is due.
    pub fn sleep_us(&mut self, next: i64, now: i64) -> i64 {
        let before = std::mem::replace(&mut self.overdue, (next <= now).then_some(next));
        if before == Some(next) {
            return STUCK_US;
        }
        next.saturating_sub(now).max(0)
    }
}

/// Rounds of a loop in a row that did nothing and asked for no wait. A few are right: a call for what somebody else has done
/// meanwhile. A loop that goes on so would keep a processor busy for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleRounds {
    in_row: u32,
}

impl IdleRounds {
    /// More than there are calls at a time.
    pub const MOST: u32 = 1_000;

    /// How long (µs) to sleep after a round that wants to sleep so long.
    pub fn sleep_us(&mut self, wanted: i64, has_worked: bool) -> i64 {
        if has_worked || wanted > 0 {
            self.in_row = 0;
            return wanted.max(0);
        }
        self.in_row = self.in_row.saturating_add(1);
        if self.are_too_many() {
            STUCK_US
        } else {
            0
        }
    }

    pub fn are_too_many(&self) -> bool {
        self.in_row > Self::MOST
    }

    /// The first that was too many: said once until something is done.
    pub fn are_news(&self) -> bool {
        self.in_row == Self::MOST + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_nothing_sleeps_and_says_so_once() {
        let mut rounds = IdleRounds::default();
        for _ in 0..2 {
            for _ in 0..IdleRounds::MOST {
                assert_eq!(rounds.sleep_us(0, false), 0);
                assert!(!rounds.are_too_many());
            }
            for round in 0..5 {
                assert_eq!(rounds.sleep_us(-3, false), STUCK_US);
                assert_eq!(
                    (rounds.are_too_many(), rounds.are_news()),
                    (true, round == 0)
                );
            }
            assert_eq!(rounds.sleep_us(0, true), 0, "it has worked");
            assert!(!rounds.are_too_many());
        }
    }

    #[test]
    fn a_loop_that_works_or_waits_is_left_alone() {
        let mut rounds = IdleRounds::default();
        for round in 0..10_000 {
            let works = round % 3 == 0;
            let wanted = if round % 3 == 1 { 7 } else { 0 };
            assert_eq!(rounds.sleep_us(wanted, works), wanted);
        }
    }

    #[test]
    fn what_is_due_is_done_at_its_time() {
        let mut pace = Pace::default();
        assert_eq!(pace.sleep_us(150, 100), 50);
        assert_eq!(pace.sleep_us(150, 149), 1);
        assert_eq!(pace.sleep_us(150, 150), 0);
        assert_eq!(pace.sleep_us(160, 170), 0);
        assert_eq!(pace.sleep_us(165, 180), 0, "another thing");
        assert_eq!(pace.sleep_us(i64::MAX, 180), i64::MAX - 180);
    }

    #[test]
    fn what_stays_due_is_waited_for() {
        let mut pace = Pace::default();
        assert_eq!(pace.sleep_us(100, 100), 0);
        let mut now = 101;
        for _ in 0..5 {
            assert_eq!(pace.sleep_us(100, now), STUCK_US);
            now += STUCK_US;
        }
        assert_eq!(pace.sleep_us(now - 1, now), 0, "the other is done");
    }
}
