//! Subscriptions: readers of the log with a cursor that is kept.

mod ack;
mod create;
pub mod read;
pub mod restore;
pub mod table;
mod wait;

pub use create::next_number;
