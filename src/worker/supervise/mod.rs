//! Who starts workers and ends them, and what is seen of them.

pub mod database_worker;
pub mod drop_database;
pub mod launcher;
mod view;
