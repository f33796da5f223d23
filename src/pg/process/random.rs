//! Randomness, secret or not.

use pgrx::pg_sys;

use crate::errors::{Error, Result, SqlState};

use std::cell::Cell;

use crate::pg::per_process::PerProcess;
use crate::pg::value::Uuid;

/// A number above 0 that nobody can guess, of as many bits as JSON numbers keep in JavaScript.
pub fn secret_number() -> Result<i64> {
    const BITS: u32 = 53;
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: fills exactly the eight bytes.
        let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
        if !filled {
            return Err(no_random_numbers());
        }
        let number = u64::from_ne_bytes(bytes) >> (u64::BITS - BITS);
        if number > 0 {
            return Ok(number as i64);
        }
    }
}

/// A hash by a key that the cluster keeps to itself, from its initdb on: nobody can tell beforehand which names have the same.
#[expect(
    deprecated,
    reason = "what replaces it may be another hash with the next compiler, and prepared transactions outlive that"
)]
pub fn keyed_hash(bytes: &[u8]) -> u64 {
    use std::hash::{Hasher, SipHasher};
    // SAFETY: 32 bytes of the control file in memory, random since initdb, which the server shows to no role; it reads them to hash.
    let nonce = unsafe {
        pg_sys::GetMockAuthenticationNonce()
            .cast::<[u64; 2]>()
            .read_unaligned()
    };
    let mut hasher = SipHasher::new_with_keys(nonce[0], nonce[1]);
    hasher.write(bytes);
    hasher.finish()
}

/// 128 bits that nobody can guess.
pub fn secret_uuid() -> Result<Uuid> {
    Ok(secret_uuids(1)?[0])
}

/// So many of them, asked for at once: one by one they were 8 % of a claim.
pub fn secret_uuids(count: usize) -> Result<Vec<Uuid>> {
    let mut bytes = vec![[0u8; 16]; count];
    // SAFETY: fills exactly the bytes.
    if unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), 16 * count) } {
        Ok(bytes.into_iter().map(Uuid).collect())
    } else {
        Err(no_random_numbers())
    }
}

/// 31 bits other than last time, above 0; the clock's where the server has no random numbers.
pub fn life() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: fills exactly the eight bytes.
    let filled = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    let number = if filled {
        u64::from_ne_bytes(bytes)
    } else {
        crate::pg::clock::now().0 as u64
    };
    (number & 0x7fff_ffff).max(1)
}

fn no_random_numbers() -> Error {
    Error::new(
        SqlState::INTERNAL_ERROR,
        "the server has no random numbers to give",
    )
    .hint("Look at the operating system's source of randomness.")
}

/// A number in [-1, 1], different in each process.
pub fn jitter() -> f64 {
    static STATE: PerProcess<Cell<u64>> = PerProcess::new(Cell::new(0));
    STATE.with(|state| {
        let mut value = state.get();
        if value == 0 {
            value = crate::pg::clock::now().0 as u64 ^ (u64::from(std::process::id()) << 40);
        }
        // splitmix64 (Steele, Lea, Flood 2014).
        value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(value);
        let mut mixed = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    })
}
