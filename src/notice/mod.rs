//! Notices on their way: collected while a transaction runs, given to NOTIFY, the event log and the queues
//! when it is about to commit.

pub mod buffer;
mod flush;
mod item;
mod item_list;
pub mod listening;
mod notify;
pub mod oversize;
pub mod repeats;
