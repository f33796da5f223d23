//! Declaring watches, and what becomes of them when their tables change or move.

pub mod altered;
pub mod arguments;
pub mod attached;
mod column_users;
pub mod end_and_pause;
pub mod orphans;
mod renamed_column;
pub mod restore;
pub mod side_effects;
pub mod table;
pub mod triggers;
mod watch;
