//! A role's share of places that all roles take from.

/// A role may have so many places for each that is free, at most: one for four.
const FREE_FOR_ONE: u64 = 4;

/// Whether a role that has `own` places may take another while `free` are.
///
/// Nobody can take the last one from somebody who has none, because what a role may have shrinks with what is left: a role alone
/// gets a fifth of all places, and the next a fifth of the rest, so that `n` roles that take what they can get leave
/// `0.8 ** n` of them. (The threshold of Choudhury and Hahne for shared buffers, IEEE/ACM ToN 6:2, 1998, with α = 1/4.)
pub const fn may_take(own: u64, free: u64) -> bool {
    own.saturating_mul(FREE_FOR_ONE) < free
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seeded::Seeded;

    /// `greedy` roles take what they can, one after another or in any order; what is left then.
    fn left_by(greedy: usize, places: u64, mut next: impl FnMut(&[usize]) -> usize) -> u64 {
        let mut own = vec![0; greedy];
        let mut free = places;
        loop {
            let able: Vec<usize> = (0..greedy)
                .filter(|role| may_take(own[*role], free))
                .collect();
            if able.is_empty() {
                return free;
            }
            own[next(&able)] += 1;
            free -= 1;
        }
    }

    #[test]
    fn whoever_has_none_gets_one_whatever_the_others_took() {
        let mut random = Seeded::new(15);
        for places in [512, 4096, 16_384] {
            for greedy in 1..=20 {
                let first = left_by(greedy, places, |able| able[0]);
                let any = left_by(greedy, places, |able| {
                    able[random.below(able.len() as u64) as usize]
                });
                let promised = places as f64 * 0.8f64.powi(greedy as i32);
                for left in [first, any] {
                    assert!(
                        left as f64 >= promised - 4.0,
                        "{greedy} of {places}: {left}"
                    );
                    assert!(may_take(0, left));
                }
            }
        }
    }

    #[test]
    fn a_role_alone_gets_a_fifth() {
        assert_eq!(left_by(1, 4096, |able| able[0]), 4096 - 820);
    }
}
