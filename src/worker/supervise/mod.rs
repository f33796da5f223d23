//! Who starts workers and ends them, and what is seen of them.

pub mod drop_database;
pub mod launcher;
mod view;
