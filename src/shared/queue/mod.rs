//! What is shared of queues: a slot each, whether it may start jobs, and who is woken when it has some.

mod gate;
pub mod queue_slot;
pub mod statistics;
pub mod wake;
