//! Watches in their table, pushy_internal.watch.

pub mod changes;
pub mod find;
pub mod lost;
pub mod number;
mod row;
pub mod write;
