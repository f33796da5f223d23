//! Channel names that cannot betray anyone: what LISTEN makes of a text, said beforehand.

mod functions;
mod grants;
pub mod hearing;
mod name;
mod owned;
mod reading;
mod refusals;
mod topics;

pub use grants::{move_in_all, move_in_from};
pub use name::Channel;
