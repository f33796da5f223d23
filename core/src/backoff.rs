//! How long a job waits after a failed attempt, and how long what the server cannot do now.

use std::fmt;

/// The curve of a queue's retry delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backoff {
    /// `base`, twice that, four times that, …
    Exponential,
    /// `base`, twice that, three times that, …
    Linear,
    /// `base`, always.
    Fixed,
}

impl Backoff {
    /// Every curve.
    pub const ALL: [Backoff; 3] = [Backoff::Exponential, Backoff::Linear, Backoff::Fixed];

    /// The word that SQL shows and takes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Backoff::Exponential => "exponential",
            Backoff::Linear => "linear",
            Backoff::Fixed => "fixed",
        }
    }

    /// The curve called `word`, exactly as [`as_str`](Self::as_str) writes it.
    pub fn parse(word: &str) -> Option<Backoff> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// The part of a delay that jitter adds or takes at most.
const JITTER: f64 = 0.1;

/// The delay in microseconds after failed attempt number `attempt` (the first is 1; 0 counts as 1).
///
/// The curve is cut at `max_us`, then `jitter`, a random number in [-1, 1], moves it by up to 10 %
/// either way; the result is never above `max_us` nor below 0. Saturates instead of overflowing, so
/// any attempt number is fine. A `base_us` or `max_us` of 0 or less gives 0.
pub fn delay_us(kind: Backoff, attempt: u32, base_us: i64, max_us: i64, jitter: f64) -> i64 {
    let base = base_us.max(0);
    let max = max_us.max(0);
    let attempt = attempt.max(1);
    let curve = match kind {
        Backoff::Exponential => {
            let factor = 1i64.checked_shl(attempt - 1).filter(|factor| *factor > 0);
            base.saturating_mul(factor.unwrap_or(i64::MAX))
        }
        Backoff::Linear => base.saturating_mul(i64::from(attempt)),
        Backoff::Fixed => base,
    };
    let delay = curve.min(max);
    let jitter = if jitter.is_nan() {
        0.0
    } else {
        jitter.clamp(-1.0, 1.0)
    };
    let shift = (delay as f64 * JITTER * jitter) as i64;
    delay.saturating_add(shift).clamp(0, max)
}

/// How long a process of Pushy's own waits when the server lacks something, such as disk space, memory or a process: twice as long
/// after each failure in a row. Without jitter, because each waits alone.
#[derive(Clone, Copy, Debug)]
pub struct ServerBackoff {
    pub first_us: i64,
    pub most_us: i64,
}

/// What somebody holds a lock of is tried again after so long (µs), however often that has been so: by executors and the relay ...
pub const HELD_US: i64 = 500_000;
/// ... and by a scheduler, which has other things to do.
pub const HELD_OF_SCHEDULER_US: i64 = 1_000_000;

/// A queue of which a batch could not be committed, and an executor that could not read its queues.
pub const EXECUTOR: ServerBackoff = ServerBackoff::of(100_000, 51_200_000);
pub const SCHEDULER: ServerBackoff = ServerBackoff::of(200_000, 51_200_000);
pub const RELAY: ServerBackoff = ServerBackoff::of(200_000, 25_600_000);
/// NOTIFY, whose queue is full.
pub const NOTIFY: ServerBackoff = ServerBackoff::of(100_000, 3_200_000);
/// The start of a worker.
pub const START: ServerBackoff = ServerBackoff::of(500_000, 60_000_000);

impl ServerBackoff {
    const fn of(first_us: i64, most_us: i64) -> Self {
        Self { first_us, most_us }
    }

    /// The delay (µs) after a failure, `before` of which there were in a row before it.
    pub fn delay_us(self, before: u32) -> i64 {
        let attempt = before.saturating_add(1);
        delay_us(
            Backoff::Exponential,
            attempt,
            self.first_us,
            self.most_us,
            0.0,
        )
    }
}

/// As messages say it: `0.1 to 51 seconds`.
impl fmt::Display for ServerBackoff {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first_us as f64 / 1e6;
        write!(out, "{first} to {:.0} seconds", self.most_us as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 86_400 * SECOND;

    fn seconds(kind: Backoff, attempts: [u32; 5]) -> [i64; 5] {
        attempts.map(|attempt| delay_us(kind, attempt, SECOND, DAY, 0.0) / SECOND)
    }

    #[test]
    fn each_curve_has_its_shape_and_stops_at_the_maximum() {
        assert_eq!(
            seconds(Backoff::Exponential, [1, 2, 3, 17, 18]),
            [1, 2, 4, 65_536, 86_400]
        );
        assert_eq!(
            seconds(Backoff::Linear, [1, 2, 3, 86_400, 90_000]),
            [1, 2, 3, 86_400, 86_400]
        );
        assert_eq!(
            seconds(Backoff::Fixed, [1, 2, 3, 4, 90_000]),
            [1, 1, 1, 1, 1]
        );
    }

    #[test]
    fn words_read_back_and_others_do_not() {
        for kind in Backoff::ALL {
            assert_eq!(Backoff::parse(kind.as_str()), Some(kind));
        }
        assert_eq!(Backoff::parse("Linear"), None);
        assert_eq!(Backoff::parse(""), None);
    }

    #[test]
    fn what_the_server_lacks_is_asked_for_less_and_less_often() {
        let seconds = |backoff: ServerBackoff| {
            [0, 1, 5, 7, 8, 9, u32::MAX].map(|before| backoff.delay_us(before) as f64 / 1e6)
        };
        assert_eq!(seconds(EXECUTOR), [0.1, 0.2, 3.2, 12.8, 25.6, 51.2, 51.2]);
        assert_eq!(seconds(SCHEDULER), [0.2, 0.4, 6.4, 25.6, 51.2, 51.2, 51.2]);
        assert_eq!(seconds(RELAY), [0.2, 0.4, 6.4, 25.6, 25.6, 25.6, 25.6]);
        assert_eq!(seconds(NOTIFY), [0.1, 0.2, 3.2, 3.2, 3.2, 3.2, 3.2]);
        assert_eq!(seconds(START), [0.5, 1.0, 16.0, 60.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn messages_say_how_long_is_waited() {
        let words = [EXECUTOR, SCHEDULER, RELAY, NOTIFY, START].map(|backoff| backoff.to_string());
        assert_eq!(
            words,
            [
                "0.1 to 51 seconds",
                "0.2 to 51 seconds",
                "0.2 to 26 seconds",
                "0.1 to 3 seconds",
                "0.5 to 60 seconds"
            ]
        );
    }

    #[test]
    fn jitter_is_ten_percent_either_way_and_never_passes_the_maximum() {
        let fixed = |max, jitter| delay_us(Backoff::Fixed, 1, SECOND, max, jitter);
        assert_eq!(fixed(DAY, 1.0), 1_100_000);
        assert_eq!(fixed(DAY, -1.0), 900_000);
        assert_eq!(fixed(DAY, 99.0), 1_100_000);
        assert_eq!(fixed(DAY, f64::NAN), SECOND);
        assert_eq!(fixed(SECOND, 1.0), SECOND);
        assert_eq!(fixed(SECOND, -1.0), 900_000);
    }

    #[test]
    fn nothing_overflows() {
        for kind in Backoff::ALL {
            for attempt in [63, 64, 65, u32::MAX] {
                let delay = |base, max| delay_us(kind, attempt, base, max, 1.0);
                assert_eq!(delay(i64::MAX, i64::MAX), i64::MAX, "{kind:?} {attempt}");
                assert_eq!(delay(0, i64::MAX), 0, "{kind:?} {attempt}");
                assert_eq!(delay(-1, DAY), 0);
                assert_eq!(delay(SECOND, -1), 0);
            }
        }
        assert_eq!(delay_us(Backoff::Exponential, 500, 1, DAY, 0.0), DAY);
    }

    #[test]
    fn any_delay_is_within_bounds_and_without_jitter_never_shrinks() {
        let mut random = Seeded::new(2);
        for _ in 0..50_000 {
            let kind = Backoff::ALL[random.below(3) as usize];
            let attempt = random.any_magnitude() as u32;
            let base = (random.any_magnitude() >> 1) as i64;
            let max = (random.any_magnitude() >> 1) as i64;
            let jitter = random.unit() * 2.0 - 1.0;
            let case = (kind, attempt, base, max, jitter);

            let plain = delay_us(kind, attempt, base, max, 0.0);
            let later = delay_us(kind, attempt.saturating_add(1), base, max, 0.0);
            let moved = delay_us(kind, attempt, base, max, jitter);
            assert!((0..=max).contains(&moved), "{case:?} gave {moved}");
            assert!(plain <= later, "{case:?}");
            // A float holds 53 bits: allow it its rounding.
            let room = plain / 10 + plain / (1 << 50) + 1;
            assert!((moved - plain).abs() <= room, "{case:?} gave {moved}");
        }
    }

    #[test]
    fn linear_lies_between_fixed_and_exponential() {
        let mut random = Seeded::new(3);
        for _ in 0..10_000 {
            let attempt = random.below(100) as u32;
            let base = random.below(1 << 40) as i64;
            let of = |kind| delay_us(kind, attempt, base, i64::MAX, 0.0);
            assert!(of(Backoff::Fixed) <= of(Backoff::Linear));
            assert!(of(Backoff::Linear) <= of(Backoff::Exponential));
        }
    }
}
