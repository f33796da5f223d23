//! VACUUM by a worker.

use crate::errors::Result;
use std::ffi::CString;

use pgrx::pg_sys;

use crate::pg::catch::caught;
use crate::pg::memory::{self, Context};
use crate::pg::transaction;

/// Makes room of dead rows in tables of schema pushy_internal, with their index entries, in transactions of its own; outside any.
/// A table that somebody holds is left for the next time, and none is made shorter: that would take a lock which keeps
/// everybody out, and which a standby's readers would have to give way to.
pub fn run(tables: &[&str]) -> Result<()> {
    let tables: Vec<String> = tables
        .iter()
        .map(|table| format!("pushy_internal.{table}"))
        .collect();
    let command = format!(
        "VACUUM (SKIP_LOCKED, TRUNCATE off, INDEX_CLEANUP on, PARALLEL 0) {}",
        tables.join(", ")
    );
    let command = CString::new(command).expect("names of ours");
    // Outlives the transactions that VACUUM begins and ends. Dropped when it is not current any more: from 18 on the end of a
    // transaction makes current what was so at its beginning.
    let kept = Context::new(c"pushy vacuum");
    memory::around_transaction(|| {
        let outcome = caught(|| {
            let _bookkeeping = transaction::begin();
            // SAFETY: outside a transaction block, with a snapshot active, as the main loop of a backend does it; VACUUM
            // keeps its list of tables below the context of its portal. The statement is a whole one.
            unsafe {
                let portal = pg_sys::PortalContext;
                pg_sys::PortalContext = kept.raw();
                pg_sys::MemoryContextSwitchTo(kept.raw());
                let parsed =
                    pg_sys::raw_parser(command.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
                let statement = (*parsed).elements.cast::<*mut pg_sys::RawStmt>();
                let statement = (**statement).stmt.cast::<pg_sys::VacuumStmt>();
                let state = pg_sys::make_parsestate(std::ptr::null_mut());
                pg_sys::ExecVacuum(state, statement, true);
                pg_sys::PortalContext = portal;
                pg_sys::CommitTransactionCommand();
            }
        });
        if outcome.is_err() {
            transaction::abort();
            // SAFETY: a worker has no portal.
            unsafe { pg_sys::PortalContext = std::ptr::null_mut() };
        }
        outcome
    })
}
