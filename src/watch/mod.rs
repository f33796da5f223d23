//! Watches: a table's changes become notices.

// The capture that uses it comes next.
#[allow(dead_code)]
pub mod payload;
