//! How long a job that may have crashed the server runs with no other job in the cluster.
//!
//! After a crash with several jobs under way each of them is a suspect. A suspect runs alone, so that another crash
//! tells who it was, but not for ever, because the others wait meanwhile: what has not crashed by then goes on together with
//! them. If the server crashes later while it runs, it is suspected once more and alone for longer; and who was there
//! [`MOST`] times is charged for that one attempt.

/// The others wait so long (ms) for a suspect, the first time; twice as long each time that it is suspected again.
const FIRST_MS: u32 = 10_000;
/// And no longer than this.
const LONGEST_MS: u32 = 60_000;
/// A suspect waits so long (ms) for batches that are under way. It runs beside what is not over then: that was there
/// before, and has not crashed the server so far.
pub const WAIT_FOR_OTHERS_MS: u32 = 10_000;
/// So often a job is suspected; the next time it is charged.
pub const MOST: i16 = 8;

/// How long (ms) a job runs alone that has been suspected so many times.
pub fn quarantine_ms(times: i16) -> u32 {
    let doubled = FIRST_MS << times.clamp(1, MOST).saturating_sub(1);
    doubled.min(LONGEST_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a job that crashes the server `fuse_ms` after its start does so beside a job that is innocent and never
    /// ends, until it is charged; and whether the other is charged before.
    fn crashes(fuse_ms: u32) -> (u32, bool) {
        // The first crash: nobody was suspected before.
        let (mut times, mut count) = (0, 1);
        loop {
            // Both were there. Who has been there too often is charged, and both have been there as often.
            if times == MOST {
                return (count, true);
            }
            times += 1;
            count += 1;
            if fuse_ms < quarantine_ms(times) {
                return (count, false);
            }
        }
    }

    #[test]
    fn a_job_that_crashes_the_server_soon_is_found_alone_at_its_second_run() {
        for fuse_ms in [0, 1, 5_000, FIRST_MS - 1] {
            assert_eq!(crashes(fuse_ms), (2, false));
        }
    }

    #[test]
    fn one_that_takes_a_minute_is_found_before_anybody_else_is_charged() {
        for fuse_ms in (FIRST_MS..LONGEST_MS).step_by(500) {
            let (count, is_other_charged) = crashes(fuse_ms);
            assert!(count <= 5 && !is_other_charged, "{fuse_ms}: {count}");
        }
    }

    #[test]
    fn one_that_takes_longer_still_is_charged_in_the_end() {
        assert_eq!(crashes(3_600_000).0, MOST as u32 + 1);
    }

    #[test]
    fn nobody_waits_longer_than_a_minute_for_a_suspect() {
        for times in i16::MIN..=i16::MAX {
            assert!((FIRST_MS..=LONGEST_MS).contains(&quarantine_ms(times)));
        }
    }
}
