//! A watched table changes: from the trigger that fires to a notice, or a job.

pub mod cache;
mod cached_watch;
pub mod content;
mod failed_content;
mod keys;
pub mod notice_json;
pub mod partition_move;
pub mod publish;
mod read;
pub mod statement;
mod trigger;
