//! Declaring watches, and what becomes of them when their tables change or move.

pub mod arguments;
pub mod end_and_pause;
mod expression_faults;
pub mod follow;
pub mod orphans;
pub mod restore;
pub mod side_effects;
pub mod table;
pub mod trigger_texts;
pub mod triggers;
pub mod triggers_there;
pub mod warnings;
mod watch;
