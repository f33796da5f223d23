//! What is shared of queues: a slot each, whether it may start jobs, and who is woken when it has some.

mod announcing;
mod gate;
mod held;
mod idle_mark;
mod leases;
mod permits;
pub mod queue_slot;
mod queue_table;
pub mod statistics;
mod suspension;
pub mod wake;
