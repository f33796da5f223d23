//! Transactions: those of workers, what there is to know of any, their ends, their snapshots and locks.

pub mod name_lock;
pub mod object_lock;
pub mod prepared_wait;
pub mod release;
mod requirement;
pub mod role_lock;
pub mod snapshot;
pub mod subtransaction;
pub mod table_lock;
pub mod transaction_end;
mod worker_transaction;
mod xid;

pub use requirement::{
    commit_in_procedure, is_in_recovery, is_read_only, require_leader, require_nonatomic,
    require_primary, require_writable,
};
pub use snapshot::{with_latest_snapshot, with_snapshot};
pub use worker_transaction::{
    abort, begin, commit, commit_durably, flush_commits, log_at_commit, run, run_deferred,
    run_each, run_unless_busy, run_within,
};
pub use xid::{
    await_end, has_committed, is_own, is_running, is_serializable, most_prepared, my_xids,
    nest_level, next_xid, subtransaction_ids, wal_position, xid, xid_if_any, Savepoint,
};
