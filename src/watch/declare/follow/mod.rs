//! Watches follow their tables: columns that change their type or their name, partitions that are attached.

pub mod altered;
pub mod attached;
mod column_users;
mod renamed_column;
