//! Declaring queues, changing and dropping them, and taking them over from another database.

pub mod alter;
pub mod drop;
pub mod handler_name;
pub mod options;
pub mod pause;
pub mod quota;
pub mod register;
mod rename;
pub mod restore;
pub mod upgrade;
