//! What one job must not leave to the next. DISCARD ALL cannot run inside a transaction; these parts
//! of it can (discard.c).

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

use crate::pg::guard::guarded;

extern "C-unwind" {
    fn PortalHashTableDeleteAll();
    fn DropAllPreparedStatements();
    fn LockReleaseSession(method: pg_sys::LOCKMETHODID);
    fn ResetSequenceCaches();
}

/// Closes cursors, forgets prepared statements, session advisory locks and sequence values. Cheap when
/// there are none. Inside a transaction, no portal being active.
pub fn clean_between_jobs() {
    // SAFETY: what DISCARD ALL calls; there is no active portal in a worker between two jobs. One guard for
    // all: there is nothing to drop inside.
    unsafe {
        guarded(|| {
            PortalHashTableDeleteAll();
            DropAllPreparedStatements();
            LockReleaseSession(pg_sys::USER_LOCKMETHOD as pg_sys::LOCKMETHODID);
            ResetSequenceCaches();
        });
    }
}

/// The same after a procedure, whose commits have kept what it has set: settings, the session's role, temporary objects. In a
/// transaction of its own, with nothing of the procedure's left open.
pub fn clean_after_procedure() {
    extern "C-unwind" {
        fn PortalErrorCleanup();
        fn ResetAllOptions();
        fn SetPGVariable(name: *const std::ffi::c_char, args: *mut pg_sys::List, is_local: bool);
    }
    // SAFETY: what DISCARD ALL calls (discard.c), and RESET ROLE; before it what the server's main loop does after an error,
    // because a loop over a query that was open at a commit holds its portal pinned.
    unsafe {
        guarded(|| {
            PortalErrorCleanup();
            SetPGVariable(
                c"session_authorization".as_ptr(),
                std::ptr::null_mut(),
                false,
            );
            SetPGVariable(c"role".as_ptr(), std::ptr::null_mut(), false);
            ResetAllOptions();
        });
    }
    clean_between_jobs();
    take_constraints_set();
    if has_temporary_schema() {
        drop_temporary_objects();
    }
}

/// Whether this session has ever made a temporary object that was committed.
pub fn has_temporary_schema() -> bool {
    let (mut namespace, mut toast) = (pg_sys::Oid::INVALID, pg_sys::Oid::INVALID);
    // SAFETY: writes both.
    unsafe { pg_sys::GetTempNamespaceState(&mut namespace, &mut toast) };
    namespace != pg_sys::Oid::INVALID
}

/// Whether the transaction has touched temporary objects.
pub fn used_temporary_objects() -> bool {
    // SAFETY: reads a variable of this process.
    unsafe {
        *std::ptr::addr_of!(pg_sys::MyXactFlags) as u32 & pg_sys::XACT_FLAGS_ACCESSEDTEMPNAMESPACE
            != 0
    }
}

static CONSTRAINTS_SET: AtomicBool = AtomicBool::new(false);

/// SET CONSTRAINTS has run: nothing but the end of the transaction undoes it.
pub fn constraints_set() {
    CONSTRAINTS_SET.store(true, Ordering::Relaxed);
}

/// Whether SET CONSTRAINTS has run since this was asked last.
pub fn take_constraints_set() -> bool {
    CONSTRAINTS_SET.load(Ordering::Relaxed) && CONSTRAINTS_SET.swap(false, Ordering::Relaxed)
}

/// Drops all temporary objects of this session, in the current transaction.
pub fn drop_temporary_objects() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::ResetTempTableNamespace() }
}

/// The process id of this session, as pg_backend_pid() has it.
pub fn pid() -> i32 {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::MyProcPid }
}
