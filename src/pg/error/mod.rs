//! Errors of the server: raised, caught, reported; and panics of ours.

pub mod catch;
pub mod ereport;
pub mod guard;
pub mod panics;
