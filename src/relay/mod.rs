//! The relay of one database: finds what was committed to the event log, puts it into ticks, emits to LISTENers,
//! gives notices to queues that subscribe, and turns from one part of the log to the next.
//!
//! It runs no user code. It comes when something was logged, and leaves when nothing was for a while.

mod emit;
mod empty;
mod part;
mod queue_sink;
mod queue_sinks;
mod queues;
mod reach;
mod start;
mod ticking;
mod worker;
