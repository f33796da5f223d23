//! Queues: how they are declared, changed, shared and explained.

pub mod alter;
pub mod cache;
pub mod control;
pub mod definition;
pub mod drop;
pub mod explain;
pub mod fitness;
pub mod grant;
pub mod handler_name;
pub mod held;
pub mod options;
pub mod park;
pub mod pause;
pub mod privilege;
pub mod publish;
pub mod register;
mod rename;
pub mod restore;
mod row_holders;
mod share;
pub mod statistics;
pub mod store;
mod unfit;
pub mod upgrade;
pub mod visible;
