//! The event log: notices that cost their writers a row and no lock, read by the relay and by subscriptions.
//!
//! Writers append to the current part (`writing`). The relay finds what has committed, by the difference of two
//! snapshots, and writes down where it lies: a tick (`tick`). Readers go from tick to tick (`read`).

mod behind;
pub mod events;
pub mod filter;
pub mod log_snapshot;
mod merged;
pub mod parts;
pub mod read;
pub mod standing;
pub mod state;
mod stream;
pub mod subscription;
pub mod tick;
mod view;
mod writing;

use crate::errors::Result;
use crate::pg::size;

/// Whether anything lies in the log, read or not.
pub fn is_used() -> Result<bool> {
    Ok((0..parts::PARTS).any(|part| size::total_bytes(parts::log_table(part)) > 0))
}

pub use standing::is_timeline_news;
pub use writing::append::{append, LoggedNotice};
pub use writing::current_part::{is_big, is_full};
pub use writing::gap::{is_marker, leave_marker};
pub use writing::role_share::{counted_bytes, expect_share};
