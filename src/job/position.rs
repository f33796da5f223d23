//! The order of ready jobs: values of one sequence.

use crate::errors::Result;
use crate::pg::{identity, sequence};

/// The next position, which is also the number of a new job. Drawn anew whenever a job becomes ready,
/// so that it goes behind those already waiting.
pub fn next() -> Result<i64> {
    Ok(sequence::next(identity::expect_relation("position_seq")?))
}
