//! What tenants can make long, and can ask for without end, gets a share of a worker's time: after each turn it rests for so many
//! times as long as the turn took.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    times: i64,
    most_us: i64,
    /// It rests as long as the turn took at least, and up to `longest_us`, where that is longer than `most_us`.
    longest_us: i64,
}

impl Rest {
    const SECOND_US: i64 = 1_000_000;
    const MINUTE_US: i64 = 60 * Self::SECOND_US;

    /// Reading all queues, or all subscriptions, after one of them has changed: everything else goes on with those read last.
    pub const DEFINITIONS: Self = Self::of(10, Self::MINUTE_US);
    /// Looking for ready jobs that nobody announced, when somebody asked for it. Committed jobs wait for that: a second at most, or as long
    /// again as the last sweep took. Stretches of a sweep have due jobs between them, so half of a scheduler's time is not too much ...
    pub const ASKED_SWEEP: Self = Self {
        longest_us: Self::MINUTE_US,
        ..Self::of(10, Self::SECOND_US)
    };
    /// ... and when nobody did. An hour at most, because it may have waited for a lock.
    pub const SWEEP: Self = Self::of(100, 60 * Self::MINUTE_US);
    /// Looking through all jobs that wait for those whose queue is gone.
    pub const ORPHANS: Self = Self::of(100, Self::MINUTE_US);
    /// Looking through all of the history again for what dropped queues have left, because somebody held some of it.
    pub const PURGE: Self = Self::of(100, 60 * Self::MINUTE_US);

    const fn of(times: i64, most_us: i64) -> Self {
        Self {
            times,
            most_us,
            longest_us: 0,
        }
    }

    /// When (µs) the next turn is, after one that took so long and has just ended.
    pub fn until(self, took_us: i64, now: i64) -> i64 {
        let rest = self.times.saturating_mul(took_us).clamp(0, self.most_us);
        now.saturating_add(rest.max(took_us.min(self.longest_us)))
    }

    /// Whether it rests, where that was the answer. The clock may have been set back.
    pub fn is_on(self, until: i64, now: i64) -> bool {
        let most_us = self.most_us.max(self.longest_us);
        (1..=most_us).contains(&until.saturating_sub(now))
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

    /// Somebody asks without end; how long another, who asks at any moment, waits until a turn has begun after that and has ended.
    fn longest_wait(rest: Rest, took_us: i64) -> i64 {
        let until = rest.until(took_us, 0);
        assert!(rest.is_on(until, 0) && !rest.is_on(until, until));
        // He has come when the turn before had just begun.
        took_us + until + took_us
    }

    #[test]
    fn who_asks_for_a_sweep_waits_a_second_or_as_long_as_sweeps_take_though_others_ask_without_end()
    {
        let second = Rest::SECOND_US;
        for took_us in [1, 1_000, 50_000, 100_000, second, 10 * second, 60 * second] {
            let beside_sweeps = longest_wait(Rest::ASKED_SWEEP, took_us) - 2 * took_us;
            assert!(
                beside_sweeps <= took_us.max(second),
                "{took_us}: {beside_sweeps}"
            );
        }
    }

    #[test]
    fn sweeps_that_are_asked_for_without_end_take_half_of_the_time_at_most_and_short_ones_a_tenth()
    {
        for (took_us, share) in [(1_000, 11), (100_000, 11), (1_000_000, 2), (60_000_000, 2)] {
            let rest_us = Rest::ASKED_SWEEP.until(took_us, 0);
            assert_eq!((took_us + rest_us) / took_us, share, "{took_us}");
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
