//! Where a command may run, and the refusal where it may not.

use pgrx::pg_sys;

use crate::errors::{Error, Result, SqlState};
use crate::pg::ereport;

extern "C-unwind" {
    // Without the guard of the bindings: asked for each row, it raises nothing.
    fn RecoveryInProgress() -> bool;
}

/// Commits the transaction of a CALL at top level and begins the next, holding no snapshot.
pub fn commit_in_procedure() -> Result<()> {
    // SAFETY: connected without atomicity; SPI_commit raises 2D000 where that is not so.
    unsafe {
        pg_sys::SPI_connect_ext(pg_sys::SPI_OPT_NONATOMIC as i32);
        pg_sys::SPI_commit();
        pg_sys::SPI_finish();
    }
    Ok(())
}

/// Refuses a procedure that ends transactions where it cannot.
pub fn require_nonatomic(nonatomic: bool, procedure: &str) -> Result<()> {
    if nonatomic {
        return Ok(());
    }
    Err(Error::new(
        SqlState::INVALID_TRANSACTION_TERMINATION,
        format!("procedure {procedure} cannot run inside a transaction block"),
    )
    .hint("CALL it on its own, outside BEGIN … COMMIT and outside a function: it must hold no snapshot while it waits."))
}

/// Refuses a command in a read-only transaction and on a standby (25006), by its own name.
pub fn require_writable(command: &std::ffi::CStr) {
    // SAFETY: reads a variable of this process. On a standby every transaction is read-only.
    if unsafe { pg_sys::XactReadOnly } {
        refuse_write(command, "in a read-only transaction");
    }
}

/// In the server's words, which have no hint.
#[cold]
fn refuse_write(command: &std::ffi::CStr, place: &str) {
    let hint = if is_in_recovery() {
        "The server is a standby: call it on the primary."
    } else {
        "Begin the transaction with BEGIN READ WRITE; if every one is read-only, default_transaction_read_only says so, of the session, the role, the database or the server."
    };
    let message = format!("cannot execute {} {place}", command.to_string_lossy());
    ereport::raise(&Error::new(SqlState::READ_ONLY_TRANSACTION, message).hint(hint));
}

/// Whether the transaction may not write: it said so, or this is a standby.
pub fn is_read_only() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::XactReadOnly || RecoveryInProgress() }
}

/// Whether this is a standby.
pub fn is_in_recovery() -> bool {
    // SAFETY: reads shared memory.
    unsafe { RecoveryInProgress() }
}

/// Refuses what is collected for the commit in a parallel worker, whose transaction ends without one. `command`: for the message.
pub fn require_leader(command: &str) -> Result<()> {
    // SAFETY: reads a variable of this process.
    if unsafe { pg_sys::ParallelWorkerNumber } < 0 {
        return Ok(());
    }
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{command} cannot be called in a parallel worker"),
    )
    .hint("Mark the function that calls it PARALLEL UNSAFE or PARALLEL RESTRICTED."))
}

/// Refuses a command on a standby, by its own name.
pub fn require_primary(command: &std::ffi::CStr) {
    if is_in_recovery() {
        refuse_write(command, "during recovery");
    }
}
