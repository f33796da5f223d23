//! What is to be done when others can see what a commit has changed in the catalogs. The server sends its invalidations after the
//! callbacks of a commit: a process that one of these wakes may still find the role or the database of before in its caches.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::pg::per_process::PerProcess;

type Work = fn();

static WORK: PerProcess<Cell<Option<Work>>> = PerProcess::new(Cell::new(None));
static IS_REGISTERED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Has `work` called once, when the transaction that is committing has sent its invalidations. It flips atomics and sets
/// latches only. Fit for a commit callback.
pub fn call(work: Work) {
    WORK.set(Some(work));
}

/// Before the commit, because it allocates.
pub fn prepare() {
    if !IS_REGISTERED.replace(true) {
        // SAFETY: the callback stays valid as long as the library is loaded.
        unsafe { pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut()) }
    }
}

unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _arg: *mut std::ffi::c_void,
) {
    // The locks, too, are gone by then.
    if is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS {
        if let Some(work) = WORK.take() {
            work();
        }
    }
}
