//! Writing to the log, in the writer's transaction, and what keeps that bounded.

pub(super) mod append;
pub(super) mod current_part;
pub(super) mod gap;
pub(super) mod role_share;
