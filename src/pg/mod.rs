//! The only place of raw `pg_sys`: one idea of the server per file, each behind a small safe wrapper.

pub mod ereport;
pub mod function;
pub mod identity;
pub mod spi;
pub mod text;
