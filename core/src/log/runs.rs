//! Where the events of a tick lie: runs of neighbours on a page of one part of the log.

use super::varint;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub part: u8,
    pub block: u32,
    /// The line pointer of its first event, from 1.
    pub first: u16,
    pub count: u16,
    /// Of its first event, and one more for each: what is found elsewhere is not what was meant.
    pub position: i64,
}

/// Runs in order, as bytes: block and position as the distance from the run before.
pub fn encode(runs: &[Run]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(runs.len() * 5);
    let (mut block, mut position) = (0i64, 0i64);
    for run in runs {
        bytes.push(run.part);
        varint::put(&mut bytes, zigzag(i64::from(run.block) - block));
        varint::put(&mut bytes, u64::from(run.first));
        varint::put(&mut bytes, u64::from(run.count));
        varint::put(&mut bytes, zigzag(run.position.wrapping_sub(position)));
        (block, position) = (i64::from(run.block), run.position);
    }
    bytes
}

/// Small distances both ways are small numbers.
fn zigzag(distance: i64) -> u64 {
    ((distance << 1) ^ (distance >> 63)) as u64
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1) as i64 ^ -((number & 1) as i64)
}

pub fn decode(mut bytes: &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::new();
    let (mut block, mut position) = (0i64, 0i64);
    while let Some((part, rest)) = bytes.split_first() {
        bytes = rest;
        block = block.checked_add(unzigzag(varint::take(&mut bytes)?))?;
        let (first, count) = (varint::take(&mut bytes)?, varint::take(&mut bytes)?);
        position = position.wrapping_add(unzigzag(varint::take(&mut bytes)?));
        runs.push(Run {
            part: *part,
            block: u32::try_from(block).ok()?,
            first: u16::try_from(first).ok()?,
            count: u16::try_from(count).ok()?,
            position,
        });
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_runs_are_refused_and_overflow_nothing() {
        let mut bytes = vec![0];
        varint::put(&mut bytes, zigzag(7));
        bytes.extend([1, 1, 0, 0]);
        varint::put(&mut bytes, zigzag(i64::MAX));
        bytes.extend([1, 1, 0]);
        assert_eq!(decode(&bytes), None);
        assert_eq!(decode(&bytes[..3]), None);
    }

    #[test]
    fn runs_come_back_in_their_order() {
        let run = |part, block, first, count, position| Run {
            part,
            block,
            first,
            count,
            position,
        };
        let runs = [
            run(0, 0, 1, 1, 1 << 60),
            run(5, u32::MAX - 1, 291, 291, 0),
            run(2, 7, 3, 100, 24_000_000),
            run(2, 6, 1, 2, 23_999_999),
        ];
        assert_eq!(decode(&encode(&runs)), Some(runs.to_vec()));
        assert_eq!(decode(&[]), Some(vec![]));
        assert_eq!(decode(&[1, 2]), None);
    }
}
