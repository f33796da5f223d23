//! The only place of raw `pg_sys`: one idea of the server per file, each behind a small safe wrapper.

pub use pgrx::pg_sys::{BuiltinOid, Datum, Oid};

pub mod clock;
#[allow(dead_code)]
pub mod columns;
pub mod composite;
pub mod condition;
pub mod database;
pub mod ereport;
pub mod function;
pub mod function_catalog;
pub mod guc;
pub mod handler;
pub mod heap;
pub mod identifier;
pub mod identity;
pub mod interrupts;
pub mod json;
pub mod latch;
pub mod mapped_file;
pub mod memory;
pub mod notify;
pub mod random;
pub mod sequence;
pub mod session;
pub mod session_format;
pub mod shared_cast;
pub mod shmem;
pub mod signals;
pub mod snapshot;
pub mod spi;
pub mod spinlock;
pub mod subtransaction;
pub mod table_lock;
pub mod text;
pub mod timeout;
pub mod transaction;
pub mod utility;
pub mod value;
pub mod varlena;
pub mod worker;
