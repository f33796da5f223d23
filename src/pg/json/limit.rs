//! How long JSON may become. What would be longer is left out while it is built, and then all of it is refused: its
//! length cannot be known beforehand, and the server can neither store nor send what is over 1 GB.

use crate::errors::{Error, Result, SqlState};
use std::cell::Cell;

use crate::pg::per_process::PerProcess;

/// Up to this many bytes, of one value or of all, nobody counts.
pub const LARGE: usize = 1 << 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fits,
    TooLong,
    NoMemory,
}

#[derive(Clone, Copy)]
struct Limit {
    limit: usize,
    outcome: Outcome,
}

static LIMIT: PerProcess<Cell<Limit>> = PerProcess::new(Cell::new(Limit {
    limit: usize::MAX,
    outcome: Outcome::Fits,
}));

/// Puts back the limit of before, also where an error leaves.
struct Outer(Limit);

impl Drop for Outer {
    fn drop(&mut self) {
        LIMIT.set(self.0);
    }
}

/// Runs `work`, which may append to what is written until it has so many bytes; an error when they were not enough.
pub fn bounded(limit: usize, out: &mut Vec<u8>, work: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
    let outer = Outer(LIMIT.replace(Limit {
        limit,
        outcome: Outcome::Fits,
    }));
    work(out);
    let outcome = LIMIT.get().outcome;
    drop(outer);
    match outcome {
        Outcome::Fits if out.len() <= limit => Ok(()),
        Outcome::Fits | Outcome::TooLong => Err(too_long(limit)),
        Outcome::NoMemory => Err(Error::new(
            SqlState::OUT_OF_MEMORY,
            "out of memory for the payload",
        )),
    }
}

#[cold]
pub fn too_long(limit: usize) -> Error {
    Error::new(
        SqlState::PROGRAM_LIMIT_EXCEEDED,
        format!("the payload is longer than {limit} bytes (pushy.max_payload)"),
    )
    .hint("Watch with payload => 'key', and read the row; or raise pushy.max_payload, which is below 1 GB.")
}

/// Whether `more` bytes may be appended, as many as a large value has.
#[inline]
pub fn has(more: usize, out: &mut Vec<u8>) -> bool {
    more <= LARGE || make(more, out)
}

/// Whether a list may go on.
#[inline]
pub fn is_left(out: &mut Vec<u8>) -> bool {
    out.len() <= LARGE || make(LARGE, out)
}

#[cold]
fn make(more: usize, out: &mut Vec<u8>) -> bool {
    let mut current = LIMIT.get();
    if current.outcome != Outcome::Fits {
        return false;
    }
    current.outcome = if out.len().saturating_add(more.min(current.limit)) > current.limit
        || more > current.limit
    {
        Outcome::TooLong
    } else if out.try_reserve(more).is_err() {
        Outcome::NoMemory
    } else {
        return true;
    };
    LIMIT.set(current);
    false
}
