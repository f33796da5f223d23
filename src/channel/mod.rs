//! Channel names that cannot betray anyone: what LISTEN makes of a text, said beforehand.

mod functions;
mod name;
mod reading;
mod refusals;

pub use name::Channel;
