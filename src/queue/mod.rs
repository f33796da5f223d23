//! Queues: how they are declared, changed, shared and explained.

pub mod announce;
pub mod cache;
pub mod channel_name;
pub mod control_channel;
mod declare;
pub mod definition;
pub mod dependents;
pub mod dropped;
pub mod eligibility;
pub mod explain;
pub mod gateway_event;
pub mod lease_length;
pub mod leased;
pub mod park;
pub mod reference;
mod rights;
mod row_holders;
pub mod statistics;
pub mod store;

use declare::quota;
pub use declare::{alter, handler_name, options, pause, register, restore, upgrade};
use eligibility::ineligible;
pub use rights::{privilege, visible};
