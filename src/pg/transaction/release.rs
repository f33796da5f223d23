//! What is to be done when the locks of a transaction are gone and its invalidations are sent, so that others can see what it has
//! changed in the catalogs. The server sends them after the callbacks of a commit: a process that one of these wakes may still
//! find the role or the database of before in its caches.

use std::cell::Cell;

use pgrx::pg_sys;

use crate::pg::per_process::PerProcess;

type Work = fn();

/// The most that one transaction has to do then.
const MOST: usize = 2;

static WORK: PerProcess<Cell<[Option<Work>; MOST]>> = PerProcess::new(Cell::new([None; MOST]));
static IS_REGISTERED: PerProcess<Cell<bool>> = PerProcess::new(Cell::new(false));

/// Before the commit, because it allocates.
pub fn prepare() {
    if !IS_REGISTERED.get() {
        // SAFETY: registered for the life of the process; may raise an ERROR before anything has changed.
        unsafe { pg_sys::RegisterResourceReleaseCallback(Some(released), std::ptr::null_mut()) }
        IS_REGISTERED.set(true);
    }
}

/// Has `work` called once when the locks of this transaction are gone, whether it commits or is rolled back. It flips atomics and
/// sets latches only. After [`prepare`]; may itself be called in a commit callback.
pub fn call(work: Work) {
    let mut all = WORK.get();
    if all
        .iter()
        .flatten()
        .any(|other| std::ptr::fn_addr_eq(*other, work))
    {
        return;
    }
    let cell = all.iter_mut().find(|cell| cell.is_none());
    *cell.expect("a cell for each caller") = Some(work);
    WORK.set(all);
}

unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    _arg: *mut std::ffi::c_void,
) {
    if is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS {
        WORK.take().into_iter().flatten().for_each(|work| work());
    }
}
