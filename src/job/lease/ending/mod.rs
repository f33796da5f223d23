//! Leases that are over, by their time or with their session, without a word of who had them.

pub(super) mod charge;
pub mod expire;
pub mod of_session;
pub mod set_back;
pub mod walk;
