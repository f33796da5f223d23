//! Channel names that cannot betray anyone: what LISTEN makes of a text, said beforehand.

pub mod access;
mod functions;
mod granted;
mod granting;
mod grants;
pub mod heard_outside;
mod name;
mod of_queue;
mod reading;
pub mod refusals;
mod restore;
pub mod topic;
pub mod users;

pub use name::Channel;
pub use restore::DEPENDENTS;
