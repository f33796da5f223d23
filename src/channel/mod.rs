//! Channel names that cannot betray anyone: what LISTEN makes of a text, said beforehand.

pub mod access;
mod functions;
mod granted;
mod grants;
mod name;
mod reading;
mod refusals;

pub use grants::{move_in_all, move_in_from};
pub use name::Channel;
