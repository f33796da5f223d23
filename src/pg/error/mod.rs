//! Errors of the server: raised, caught, reported; and panics of ours.

pub mod ereport;
pub mod failure;
pub mod guard;
pub mod panics;
