//! The only place of raw `pg_sys`: one idea of the server per file, each behind a small safe wrapper.

pub mod clock;
pub mod condition;
pub mod database;
pub mod ereport;
pub mod function;
pub mod function_catalog;
pub mod guc;
pub mod handler;
pub mod identifier;
pub mod identity;
pub mod interrupts;
pub mod latch;
pub mod memory;
pub mod notify;
pub mod session;
pub mod shared_cast;
pub mod shmem;
pub mod signals;
pub mod spi;
pub mod spinlock;
pub mod subtransaction;
pub mod text;
pub mod timeout;
pub mod transaction;
pub mod worker;
