//! What queues and jobs of a dump are called where it is loaded: by what the dump says alone, so that all rows agree in whatever
//! order, and by however many sessions, its tables come.

/// A queue of the dump: below zero, as no queue is that was registered here.
pub fn queue_number(queue: i32, salt: i32) -> i32 {
    (queue ^ salt) | i32::MIN
}

/// Its number once the one before runs here: from each to another, until all were.
pub fn next_queue_number(number: i32) -> i32 {
    // A linear congruential sequence of the full period (Hull and Dobell).
    (number & i32::MAX)
        .wrapping_mul(1_664_525)
        .wrapping_add(1_013_904_223)
        | i32::MIN
}

/// Numbers that are given out here are below; those of loaded jobs that get others are not. A double has each exactly.
pub const LOCAL: i64 = 1 << LOCAL_BITS;
const LOCAL_BITS: u32 = 42;
/// A number or a position of elsewhere is believed below: ours go on behind it, and are to have as many again before those of loaded jobs.
pub const GIVEN_OUT: i64 = LOCAL / 2;
/// Spaces of so many numbers, of which the first is ours.
const SPACES: i64 = 1 << (53 - LOCAL_BITS);

/// A database numbers its queues one after another, from anywhere on: so queues of one have mostly the same of these, and its jobs still
/// name each other.
pub fn group(queue: i32) -> i32 {
    queue >> 16
}

/// A loaded job whose number may be another's here: below 2^53. `step`: the next for another load of the same queue, or where that
/// one is taken.
pub fn job_number(job: i64, queue: i32, step: u32) -> i64 {
    // Murmur3's last step.
    let mut mixed = group(queue) as u32;
    mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85eb_ca6b);
    mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    mixed ^= mixed >> 16;
    let shift = (i64::from(mixed) + i64::from(step)) % (SPACES - 1) + 1;
    let (local, space) = (job & (LOCAL - 1), (job >> LOCAL_BITS) & (SPACES - 1));
    let moved = match (space + shift) % SPACES {
        0 => space,
        moved => moved,
    };
    moved << LOCAL_BITS | local
}

/// Where a job stood first, which has this number by now; and where one stands that a dump says to stand there.
pub fn position(job: i64) -> i64 {
    job & (GIVEN_OUT - 1)
}

/// Whether a job may have the number that it has in the dump, as far as that says it.
pub fn may_keep(job: i64) -> bool {
    !(GIVEN_OUT..LOCAL).contains(&job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_of_queues_are_below_zero_and_lead_through_all() {
        let salt = 123_456_789;
        let mut seen = HashSet::new();
        let mut number = queue_number(7, salt);
        for _ in 0..100_000 {
            assert!(number < 0 && seen.insert(number));
            number = next_queue_number(number);
        }
        // No two have the same next one: an odd factor has an inverse.
        let queues = (1..50_000).map(|queue| queue_number(queue, salt));
        let next: HashSet<i32> = queues.map(next_queue_number).collect();
        assert_eq!(next.len(), 49_999);
    }

    #[test]
    fn loaded_jobs_have_numbers_of_their_own_that_a_double_has() {
        for queue in [1, 65_536, 999_999_999, i32::MIN, -1] {
            for step in [0, 1, 2, 2046, 2047, u32::MAX] {
                let mut seen = HashSet::new();
                for job in [1, 2, 255, 1 << 20, LOCAL - 1] {
                    let number = job_number(job, queue, step);
                    assert!((LOCAL..1 << 53).contains(&number) && seen.insert(number));
                    assert_eq!(position(number), position(job));
                    // As loaded once more from there.
                    let again = job_number(number, queue, step);
                    assert!((LOCAL..1 << 53).contains(&again));
                }
            }
        }
    }

    #[test]
    fn steps_lead_through_all_spaces() {
        let numbers =
            |queue| -> HashSet<i64> { (0..2047).map(|step| job_number(5, queue, step)).collect() };
        assert_eq!(numbers(1).len(), 2047);
        assert_eq!(numbers(1), numbers(-70_000));
    }

    #[test]
    fn jobs_of_one_database_still_name_each_other_and_those_of_two_mostly_do_not_meet() {
        assert_eq!(job_number(5, 1_000, 0), job_number(5, 60_000, 0));
        let spaces: HashSet<i64> = (0..200)
            .map(|database| job_number(5, database * 5_000_000, 0))
            .collect();
        assert!(spaces.len() > 180, "{}", spaces.len());
    }

    #[test]
    fn what_is_kept_leaves_numbers_for_ours() {
        for number in [
            1,
            7,
            GIVEN_OUT - 1,
            GIVEN_OUT,
            LOCAL - 1,
            LOCAL,
            1 << 52,
            i64::MAX,
            -1,
        ] {
            assert!((0..GIVEN_OUT).contains(&position(number)), "{number}");
            assert!(!may_keep(number) || !(GIVEN_OUT..LOCAL).contains(&number));
        }
        assert!(may_keep(1) && may_keep(LOCAL) && !may_keep(GIVEN_OUT));
        assert_eq!(position(GIVEN_OUT - 1), GIVEN_OUT - 1);
    }
}
