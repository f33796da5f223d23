//! A number for a channel, the same in every process and version.

use crate::fnv;

/// Folded: of its low bits alone neighbours would collide.
pub fn hash(channel: &[u8]) -> u64 {
    let hash = fnv::hash(channel);
    hash ^ (hash >> 32)
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn neighbours_are_told_apart_by_six_bits() {
        let bits: std::collections::HashSet<u64> = (0..64)
            .map(|n| hash(format!("channel_{n}").as_bytes()) & 63)
            .collect();
        assert!(bits.len() > 32, "{} of 64 places", bits.len());
    }
}
