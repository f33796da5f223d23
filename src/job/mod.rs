//! Jobs: from enqueue to the end of the last attempt, and what is told of them.

pub mod call;
pub mod cancel;
pub mod claimed;
pub mod current;
pub mod enqueue;
pub mod history;
pub mod live;
pub mod moves;
pub mod position;
pub mod progress;
pub mod promise;
pub mod retry;
pub mod run_in_session;
pub mod running;
pub mod tables;
pub mod trace;
pub mod unfinished;
mod unique;
pub mod wait;
