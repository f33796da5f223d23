//! Memory: contexts of the process, the segment that all processes share and locks in it, files mapped into memory.

pub mod condition;
mod context;
pub mod control_file;
pub mod mapped_file;
pub mod shared_cast;
pub mod shmem;
pub mod spinlock;

pub use context::{around_transaction, Context};
