//! Where a command may run, and the refusal where it may not.

use pgrx::pg_sys;

use crate::errors::{Error, Result, SqlState};

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
    // SAFETY: raises, or does nothing.
    unsafe { pg_sys::PreventCommandIfReadOnly(command.as_ptr()) }
}

/// Whether the transaction may not write: it said so, or this is a standby.
pub fn is_read_only() -> bool {
    // SAFETY: reads variables of this process.
    unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() }
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
    #[cold]
    fn refuse(command: &std::ffi::CStr) {
        // SAFETY: raises.
        unsafe { pg_sys::PreventCommandDuringRecovery(command.as_ptr()) }
    }
    // SAFETY: reads shared memory.
    if unsafe { RecoveryInProgress() } {
        refuse(command);
    }
}
