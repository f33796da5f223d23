//! A process of the server: its clock, latch, signals, timers and settings, and what a background worker is.

pub mod child;
pub mod clock;
pub mod guc;
pub mod insistence;
pub mod interrupts;
pub mod latch;
pub mod per_process;
pub mod random;
pub mod signals;
pub mod standby;
pub mod statement_text;
pub mod timeout;
pub mod worker;
pub mod worker_session;
