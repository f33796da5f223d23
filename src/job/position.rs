//! The order of ready jobs: values of one sequence.

use crate::errors::{Error, Result, SqlState};
use crate::pg::{identity, sequence};

/// The next position, which is also the number of a new job. Drawn anew whenever a job becomes ready,
/// so that it goes behind those already waiting.
pub fn next() -> Result<i64> {
    let oid = identity::pushy_relation("position_seq").ok_or_else(|| {
        Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "extension \"pushy\" is not installed in this database",
        )
        .hint("Run: CREATE EXTENSION pushy")
    })?;
    Ok(sequence::next(oid))
}
