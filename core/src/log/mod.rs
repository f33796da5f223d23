//! The event log's arithmetic: what a tick has seen, where its events lie, where a reader stands.

pub mod cursor;
pub mod gap;
pub mod runs;
pub mod seen;
pub mod standing;
pub mod unticked;
mod varint;
pub mod written;

/// Parts that the log has; as many tables of events and of ticks.
pub const PARTS: u32 = 6;
