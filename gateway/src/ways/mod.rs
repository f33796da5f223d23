//! The ways in: a stream of events, a socket, a long poll. What is behind each is a `session`.

pub mod close;
pub mod events;
pub mod message;
pub mod notices;
pub mod query;
pub mod session;
pub mod socket;
