//! Counters of queues in a file, for the next life of a server: only those that are not zero, with what tells whether
//! the file is whole, and of which life it is.
//!
//! All numbers are little-endian: the magic number (version included), how many counters a queue has (8 bytes), the life
//! before, how many queues follow (8), each queue, and the hash of all that (8). A queue is its database, number and epoch,
//! how many counters follow (4 each), and each counter's index (4) and value (8).

use crate::fnv;

const MAGIC: [u8; 8] = *b"pushyct\x01";

/// What tells one clean stop of one server from all others.
pub type Life = [u8; 40];

/// What a queue has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    pub database: u32,
    pub queue_id: i32,
    /// OID of the extension.
    pub epoch: u32,
    /// Index and value.
    pub counters: Vec<(usize, u64)>,
}

/// Why a file cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// Written by a version that counts something else.
    OtherVersion,
    /// Cut off, or changed.
    Torn,
    /// Whole, but not of the stop that came right before this start: the server has crashed since.
    OtherLife,
}

pub fn write(life: &Life, width: usize, queues: &[Counted]) -> Vec<u8> {
    let mut bytes = Vec::from(MAGIC);
    bytes.extend((width as u64).to_le_bytes());
    bytes.extend(life);
    bytes.extend((queues.len() as u64).to_le_bytes());
    for queue in queues {
        bytes.extend(queue.database.to_le_bytes());
        bytes.extend(queue.queue_id.to_le_bytes());
        bytes.extend(queue.epoch.to_le_bytes());
        bytes.extend((queue.counters.len() as u32).to_le_bytes());
        for (index, value) in &queue.counters {
            bytes.extend((*index as u32).to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
    }
    bytes.extend(fnv::hash(&bytes).to_le_bytes());
    bytes
}

/// Reads a file of queues that have `width` counters each, written at the end of `life`.
pub fn read(bytes: &[u8], life: &Life, width: usize) -> Result<Vec<Counted>, Unusable> {
    let (content, hash) = bytes.split_last_chunk::<8>().ok_or(Unusable::Torn)?;
    let mut rest = content;
    let magic: [u8; 8] = take(&mut rest)?;
    if magic != MAGIC {
        return Err(Unusable::OtherVersion);
    }
    if u64::from_le_bytes(*hash) != fnv::hash(content) {
        return Err(Unusable::Torn);
    }
    if u64::from_le_bytes(take(&mut rest)?) != width as u64 {
        return Err(Unusable::OtherVersion);
    }
    if take::<40>(&mut rest)? != *life {
        return Err(Unusable::OtherLife);
    }
    let queues = u64::from_le_bytes(take(&mut rest)?);
    let queues = (0..queues)
        .map(|_| read_queue(&mut rest, width))
        .collect::<Result<_, _>>()?;
    rest.is_empty().then_some(queues).ok_or(Unusable::Torn)
}

fn read_queue(rest: &mut &[u8], width: usize) -> Result<Counted, Unusable> {
    let database = u32::from_le_bytes(take(rest)?);
    let queue_id = i32::from_le_bytes(take(rest)?);
    let epoch = u32::from_le_bytes(take(rest)?);
    let counters = (0..u32::from_le_bytes(take(rest)?))
        .map(|_| {
            let index = u32::from_le_bytes(take(rest)?) as usize;
            let value = u64::from_le_bytes(take(rest)?);
            (index < width)
                .then_some((index, value))
                .ok_or(Unusable::Torn)
        })
        .collect::<Result<_, _>>()?;
    Ok(Counted {
        database,
        queue_id,
        epoch,
        counters,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Unusable> {
    let (first, others) = rest.split_first_chunk().ok_or(Unusable::Torn)?;
    *rest = others;
    Ok(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = [7; 40];
    const WIDTH: usize = 137;

    fn counted() -> Vec<Counted> {
        let queue = |queue_id, counters| Counted {
            database: 5,
            queue_id,
            epoch: 16_400,
            counters,
        };
        vec![
            queue(1, vec![(0, 3), (136, u64::MAX)]),
            queue(i32::MAX, vec![]),
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for queues in [vec![], counted()] {
            let bytes = write(&LIFE, WIDTH, &queues);
            assert_eq!(read(&bytes, &LIFE, WIDTH), Ok(queues));
        }
    }

    #[test]
    fn each_truncation_and_each_flipped_bit_is_seen() {
        let whole = write(&LIFE, WIDTH, &counted());
        for length in 0..whole.len() {
            assert!(read(&whole[..length], &LIFE, WIDTH).is_err(), "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit / 8 < MAGIC.len() {
                Unusable::OtherVersion
            } else {
                Unusable::Torn
            };
            assert_eq!(read(&bytes, &LIFE, WIDTH), Err(expected), "{bit}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(read(&longer, &LIFE, WIDTH), Err(Unusable::Torn));
    }

    #[test]
    fn a_file_of_another_life_or_version_is_not_taken() {
        let bytes = write(&LIFE, WIDTH, &counted());
        assert_eq!(read(&bytes, &[8; 40], WIDTH), Err(Unusable::OtherLife));
        assert_eq!(read(&bytes, &LIFE, WIDTH + 1), Err(Unusable::OtherVersion));
    }
}
