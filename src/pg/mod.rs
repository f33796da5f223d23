//! The only place of raw `pg_sys`: one idea of the server per file, each behind a small safe wrapper. The folders are its subjects;
//! what they offer is named here, and used as `pg::clock`, `pg::spi`.

pub use pgrx::pg_sys::{BuiltinOid, Datum, Oid};

mod call;
mod catalog;
mod error;
pub mod expression;
pub mod heap;
pub mod json;
pub mod major;
pub mod memory;
mod process;
mod sql;
pub mod transaction;
pub mod value;

use call::result_rows;
pub use call::{
    function, handler, leftovers, notify, procedure, session, table_guard, trigger, utility,
};
pub use catalog::changes as catalog_changes;
pub use catalog::function as function_catalog;
pub use catalog::trigger as catalog_trigger;
pub use catalog::type_ as catalog_type;
pub use catalog::{database, home, identifier, identity, installed, invalidation, script};
use error::guard;
pub use error::{catch, ereport, panics};
use expression::literals;
pub use heap::{append_only, by_address, size};
pub use memory::{condition, control_file, mapped_file, shared_cast, shmem, spinlock};
use process::worker_session;
pub use process::{
    child, clock, guc, insistence, interrupts, latch, per_process, random, signals, standby,
    statement_text, timeout, worker,
};
pub use sql::{search_path, sequence, spi, vacuum};
pub use transaction::{
    name_lock, object_lock, prepared_wait, release, role_lock, snapshot, subtransaction,
    table_lock, transaction_end,
};
pub use value::{
    answer, array, columns, composite, jsonb, session_format, slot, text, texts, varlena,
};
