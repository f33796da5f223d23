//! A number for a channel, the same in every process and version.

/// FNV-1a (Fowler, Noll and Vo), folded: of its low bits alone neighbours would collide.
pub fn hash(channel: &[u8]) -> u64 {
    let hash = channel.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
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
