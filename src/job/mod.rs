//! Jobs: from enqueue to the end of the last attempt, and what is told of them.

pub mod cancel;
pub mod enqueue;
pub mod moves;
pub mod retry;
mod run;
pub mod running;
pub mod session_run;
mod stored;
pub mod trace;
mod unique_key;
pub mod wait;

pub use run::{call, claimed, current};
pub use stored::{history, live, position, promise, rotation, tables};
use wait::unfinished;
