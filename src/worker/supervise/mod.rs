//! Who starts workers and ends them, and what is seen of them.

pub mod database_worker;
pub mod launcher;
pub mod quiesce;
mod view;
