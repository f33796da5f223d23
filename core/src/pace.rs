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

#[cfg(test)]
mod tests {
    use super::*;

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
