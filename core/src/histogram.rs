//! Latency histograms over microseconds: a fixed array of counters that shared memory can hold.
//!
//! Log-linear buckets, as in HdrHistogram, with two to a power of two: 0, 1, 2, 3, 4–5, 6–7, 8–11,
//! 12–15, 16–23, 24–31, … The last one begins at 53.7 minutes and takes everything above. What is known
//! of a value is its bucket, so a quantile is off by less than half of the true value at worst
//! ([`MAX_RELATIVE_ERROR`]); for a smooth distribution by 6 %, in its tail by 12 %.

/// Number of buckets, and the length of every array of counts here.
pub const BUCKETS: usize = 64;

/// No quantile of values within range is off by this part of the true value or more.
pub const MAX_RELATIVE_ERROR: f64 = 0.5;

/// The bucket, below [`BUCKETS`], that counts a latency of `us` microseconds.
#[inline]
pub const fn bucket(us: u64) -> usize {
    if us < 2 {
        return us as usize;
    }
    let power = us.ilog2();
    let half = (us >> (power - 1)) & 1;
    let index = 2 * power as usize + half as usize;
    if index < BUCKETS {
        index
    } else {
        BUCKETS - 1
    }
}

/// The smallest latency in microseconds that `bucket` counts; at most [`BUCKETS`], for which it is the
/// first one out of range.
const fn lower_us(bucket: usize) -> u64 {
    if bucket < 2 {
        return bucket as u64;
    }
    (2 + (bucket as u64 & 1)) << (bucket / 2 - 1)
}

/// The largest latency in microseconds that `bucket` counts. The last bucket counts larger ones too
/// and says 4,294,967,295 (71.6 minutes), as does any index beyond it.
pub const fn upper_us(bucket: usize) -> u64 {
    let bucket = if bucket < BUCKETS {
        bucket
    } else {
        BUCKETS - 1
    };
    lower_us(bucket + 1) - 1
}

/// How many values are below 2^`power` microseconds.
pub fn below(counts: &[u64; BUCKETS], power: u32) -> u64 {
    let buckets = counts.iter().take(bucket(1 << power));
    buckets.fold(0, |sum, count| sum.saturating_add(*count))
}

/// The latency in microseconds that the part `q` (0 to 1) of all values does not exceed, by nearest rank,
/// interpolated within its bucket; `None` without values or for a `q` that is not a number.
///
/// `counts[b]` is how many values fell into bucket `b`; entries past [`BUCKETS`] are not looked at.
pub fn quantile(counts: &[u64], q: f64) -> Option<u64> {
    let counts = &counts[..counts.len().min(BUCKETS)];
    let total = counts
        .iter()
        .fold(0u64, |sum, count| sum.saturating_add(*count));
    if total == 0 || q.is_nan() {
        return None;
    }
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total);

    let mut before = 0u64;
    for (bucket, &count) in counts.iter().enumerate() {
        if rank - before <= count {
            // The values of a bucket are taken to lie evenly in it: the k-th of n at (2k - 1) / 2n.
            let (lower, upper) = (lower_us(bucket), upper_us(bucket));
            let odd = 2 * u128::from(rank - before) - 1;
            let offset = u128::from(upper - lower) * odd / (2 * u128::from(count));
            return Some(lower + offset as u64);
        }
        before += count;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_below_a_power_of_two_is_counted_to_the_microsecond() {
        for us in [0, 1, 63, 64, 65, 127, 128, 1 << 20, (1 << 27) - 1, u64::MAX] {
            let mut counts = [0; BUCKETS];
            counts[bucket(us)] = 3;
            for power in 6..28 {
                let expected = if us < 1 << power { 3 } else { 0 };
                assert_eq!(below(&counts, power), expected, "{us} {power}");
            }
        }
    }
    use crate::seeded::Seeded;

    const HOUR_US: u64 = 3_600_000_000;

    fn counts_of(values: &[u64]) -> [u64; BUCKETS] {
        let mut counts = [0; BUCKETS];
        for value in values {
            counts[bucket(*value)] += 1;
        }
        counts
    }

    /// The exact quantile by nearest rank, from the values themselves.
    fn exact(values: &mut [u64], q: f64) -> u64 {
        values.sort_unstable();
        let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
        values[rank - 1]
    }

    fn relative_error(estimate: u64, truth: u64) -> f64 {
        estimate.abs_diff(truth) as f64 / truth.max(1) as f64
    }

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        assert_eq!(bucket(0), 0);
        for index in 0..BUCKETS {
            assert_eq!(bucket(lower_us(index)), index);
            assert_eq!(bucket(upper_us(index)), index);
            assert_eq!(upper_us(index) + 1, lower_us(index + 1));
        }
    }

    #[test]
    fn an_hour_is_in_range_and_a_century_is_counted_last() {
        assert!(upper_us(BUCKETS - 2) < HOUR_US && HOUR_US < upper_us(BUCKETS - 1));
        assert_eq!(bucket(100 * 365 * 24 * HOUR_US), BUCKETS - 1);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(upper_us(usize::MAX), upper_us(BUCKETS - 1));
    }

    #[test]
    fn no_bucket_is_wider_than_the_stated_error() {
        for index in 1..BUCKETS {
            let width = (upper_us(index) - lower_us(index)) as f64;
            assert!(
                width / (lower_us(index) as f64) < MAX_RELATIVE_ERROR,
                "{index}"
            );
        }
    }

    #[test]
    fn nothing_measured_has_no_quantile() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[0; BUCKETS], 0.5), None);
        assert_eq!(quantile(&counts_of(&[1]), f64::NAN), None);
    }

    #[test]
    fn small_values_are_exact() {
        let counts = counts_of(&[0, 1, 2, 3]);
        let found = [-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 7.0].map(|q| quantile(&counts, q).unwrap());
        assert_eq!(found, [0, 0, 0, 1, 2, 3, 3]);
    }

    #[test]
    fn full_counters_and_odd_lengths_do_no_harm() {
        assert!(quantile(&[u64::MAX; BUCKETS], 1.0).is_some());
        assert!(quantile(&[u64::MAX; BUCKETS + 9], 0.5).is_some());
        assert_eq!(quantile(&[0, 5], 0.5), Some(1));
        let mut beyond = [0; BUCKETS + 1];
        beyond[BUCKETS] = 1;
        assert_eq!(quantile(&beyond, 0.5), None);
    }

    #[test]
    fn any_value_lies_in_its_bucket_and_larger_ones_never_in_a_lower() {
        let mut random = Seeded::new(4);
        for _ in 0..100_000 {
            let (a, b) = (random.any_magnitude(), random.any_magnitude());
            assert!(a > b || bucket(a) <= bucket(b), "{a} {b}");
            let index = bucket(a);
            assert!(lower_us(index) <= a);
            assert!(a <= upper_us(index) || index == BUCKETS - 1);
        }
    }

    #[test]
    fn any_quantile_is_within_the_stated_error() {
        let mut random = Seeded::new(5);
        for _ in 0..2_000 {
            let size = 1 + random.below(200);
            let mut values: Vec<u64> = (0..size)
                .map(|_| random.any_magnitude() % (upper_us(BUCKETS - 1) + 1))
                .collect();
            let (low, high) = (random.unit(), random.unit());
            let (low, high) = (low.min(high), low.max(high));
            let counts = counts_of(&values);
            let estimate = quantile(&counts, low).unwrap();
            let truth = exact(&mut values, low);
            let error = relative_error(estimate, truth);
            assert!(error < MAX_RELATIVE_ERROR, "{estimate} for {truth}");
            assert!(estimate <= quantile(&counts, high).unwrap());
        }
    }

    #[test]
    fn smooth_latencies_are_within_six_percent_and_their_tail_within_twelve() {
        let mut random = Seeded::new(6);
        for mean in [300.0, 1_000.0, 2_500.0, 5_000.0, 14_000.0] {
            // Exponentially distributed; the tail is where the density falls steeply within a bucket.
            let mut values: Vec<u64> = (0..20_000)
                .map(|_| (-mean * (1.0 - random.unit()).ln()) as u64)
                .collect();
            let counts = counts_of(&values);
            for (q, limit) in [(0.25, 0.06), (0.5, 0.06), (0.9, 0.06), (0.99, 0.12)] {
                let estimate = quantile(&counts, q).unwrap();
                let truth = exact(&mut values, q);
                let error = relative_error(estimate, truth);
                assert!(error < limit, "mean {mean}, {q}: {estimate} for {truth}");
            }
        }
    }
}
