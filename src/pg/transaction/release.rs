//! What is to be done when the locks of a transaction are gone and its invalidations are sent, so that others can see what it has
//! changed in the catalogs. The server sends them after the callbacks of a commit: a process that one of these wakes may still
//! find the role or the database of before in its caches.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

/// What is to be done then: a static of whoever has it done. It flips atomics and sets latches only.
pub struct AtRelease {
    work: fn(),
    /// The server tells this process of the ends of transactions.
    is_registered: AtomicBool,
    is_wanted: AtomicBool,
}

impl AtRelease {
    pub const fn new(work: fn()) -> Self {
        Self {
            work,
            is_registered: AtomicBool::new(false),
            is_wanted: AtomicBool::new(false),
        }
    }

    /// Before the commit, because it allocates.
    pub fn prepare(&'static self) {
        if self.is_registered.load(Ordering::Relaxed) {
            return;
        }
        let arg = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: registered for the life of the process, with a static; may raise an ERROR before anything has changed.
        unsafe { pg_sys::RegisterResourceReleaseCallback(Some(released), arg) }
        self.is_registered.store(true, Ordering::Relaxed);
    }

    /// Has the work done once when the locks of this transaction are gone, whether it commits or is rolled back. After
    /// [`AtRelease::prepare`]; may itself be called in a commit callback.
    pub fn call(&self) {
        self.is_wanted.store(true, Ordering::Relaxed);
    }
}

unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    _is_commit: bool,
    is_top_level: bool,
    arg: *mut c_void,
) {
    if is_top_level && phase == pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS {
        // SAFETY: the static that was registered with this callback.
        let released = unsafe { &*arg.cast::<AtRelease>() };
        if released.is_wanted.swap(false, Ordering::Relaxed) {
            (released.work)();
        }
    }
}
