//! JSON as a notice has it: values that a JavaScript client reads back without loss.
//!
//! Everything is appended to bytes in the server's encoding, which need not be UTF-8; every encoding a
//! server can have keeps ASCII as is, never inside a longer character.

mod moment;
mod number;
mod string;

pub use moment::{date, interval, timestamp, timestamptz, Interval};
pub use number::{float4, float8, int8, integer, money, numeric};
pub use string::{hex, quoted, quoted_length, read_uuid, uuid};

/// What `write` appends.
#[cfg(test)]
fn of(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}
