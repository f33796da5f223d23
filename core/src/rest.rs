//! What tenants can make long, and can ask for without end, gets a share of a worker's time: after each turn it rests for so many
//! times as long as the turn took.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    times: i64,
    most_us: i64,
}

impl Rest {
    const MINUTE_US: i64 = 60_000_000;

    /// Reading all queues, or all subscriptions, after one of them has changed: everything else goes on with those read last.
    pub const DEFINITIONS: Self = Self::of(10, Self::MINUTE_US);
    /// Looking for ready jobs that nobody announced, when somebody asked for it, because committed jobs wait for that ...
    pub const ASKED_SWEEP: Self = Self::of(10, Self::MINUTE_US);
    /// ... and when nobody did. An hour at most, because it may have waited for a lock.
    pub const SWEEP: Self = Self::of(100, 60 * Self::MINUTE_US);
    /// Looking through all jobs that wait for those whose queue is gone.
    pub const ORPHANS: Self = Self::of(100, Self::MINUTE_US);
    /// Looking through all of the history again for what dropped queues have left, because somebody held some of it.
    pub const PURGE: Self = Self::of(100, 60 * Self::MINUTE_US);

    const fn of(times: i64, most_us: i64) -> Self {
        Self { times, most_us }
    }

    /// When (µs) the next turn is, after one that took so long and has just ended.
    pub fn until(self, took_us: i64, now: i64) -> i64 {
        let rest = self.times.saturating_mul(took_us);
        now.saturating_add(rest.clamp(0, self.most_us))
    }

    /// Whether it rests, where that was the answer. The clock may have been set back.
    pub fn is_on(self, until: i64, now: i64) -> bool {
        (1..=self.most_us).contains(&until.saturating_sub(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Rest = Rest::of(10, 1_000);

    #[test]
    fn what_is_asked_for_without_end_gets_its_share() {
        for took_us in [1, 7, 50] {
            let (mut now, mut worked) = (0, 0);
            let mut until = 0;
            while now < 100_000 {
                if REST.is_on(until, now) {
                    now = until;
                }
                now += took_us;
                worked += took_us;
                until = REST.until(took_us, now);
            }
            assert!(worked <= now / 10, "{worked} of {now}");
        }
    }

    #[test]
    fn it_rests_so_long_at_most_whatever_the_clock_does() {
        assert_eq!(REST.until(5_000, 70), 1_070);
        assert_eq!(REST.until(-5, 70), 70);
        assert_eq!(REST.until(i64::MAX, i64::MAX - 5), i64::MAX);
        assert!(!REST.is_on(70, 70));
        assert!(REST.is_on(71, 70));
        assert!(REST.is_on(1_070, 70));
        assert!(!REST.is_on(1_071, 70), "the clock was set back");
        assert!(!REST.is_on(i64::MAX, -1));
    }
}
