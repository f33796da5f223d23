//! Notices on their way: collected while a transaction runs, given to NOTIFY, the event log and the queues
//! when it is about to commit.

pub mod buffer;
mod flush;
pub mod listening;
pub mod oversize;
pub mod repeats;
pub mod usual;
