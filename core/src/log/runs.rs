//! Where the events of a tick lie: runs of neighbours on a page of one part of the log.

use super::varint;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub part: u8,
    pub block: u32,
    /// The line pointer of its first event, from 1.
    pub first: u16,
    pub count: u16,
}

/// Runs in order, as bytes: each block as the distance from the one before.
pub fn encode(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(runs.len() * 5);
    let mut last = 0i64;
    for run in runs {
        bytes.push(run.part);
        let distance = i64::from(run.block) - last;
        last = i64::from(run.block);
        // Zigzag: small distances both ways are small numbers.
        varint::put(&mut bytes, ((distance << 1) ^ (distance >> 63)) as u64);
        varint::put(&mut bytes, u64::from(run.first));
        varint::put(&mut bytes, u64::from(run.count));
    }
    bytes
}

pub fn decode(mut bytes: &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let mut last = 0i64;
    while let Some((part, rest)) = bytes.split_first() {
        bytes = rest;
        let zigzag = varint::take(&mut bytes)?;
        last += (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        runs.push(Run {
            part: *part,
            block: u32::try_from(last).ok()?,
            first: u16::try_from(varint::take(&mut bytes)?).ok()?,
            count: u16::try_from(varint::take(&mut bytes)?).ok()?,
        });
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_in_their_order() {
        let run = |part, block, first, count| Run {
            part,
            block,
            first,
            count,
        };
        let runs = [
            run(0, 0, 1, 1),
            run(5, u32::MAX - 1, 291, 291),
            run(2, 7, 3, 100),
            run(2, 6, 1, 2),
        ];
        assert_eq!(decode(&encode(&runs)), Some(runs.to_vec()));
        assert_eq!(decode(&[]), Some(vec![]));
        assert_eq!(decode(&[1, 2]), None);
    }
}
