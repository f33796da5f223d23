//! Subscriptions: readers of the log with a cursor that is kept.

mod ack;
pub mod arguments;
mod begin;
mod create;
mod drop;
pub mod read;
pub mod restore;
pub mod table;
pub mod users;
pub mod wait;

pub use create::next_number;
