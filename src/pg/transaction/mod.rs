//! Transactions: those of workers, what there is to know of any, their ends, their snapshots and locks, and the statements in them.

pub mod after_commit;
pub mod object_lock;
mod requirement;
pub mod role_lock;
mod rows;
pub mod search_path;
pub mod sequence;
pub mod snapshot;
pub mod spi;
pub mod subtransaction;
pub mod table_lock;
pub mod transaction_end;
pub mod vacuum;
mod worker_transaction;
mod xid;

pub use requirement::*;
pub use snapshot::{with_latest_snapshot, with_snapshot};
pub use worker_transaction::*;
pub use xid::*;
