//! Memory contexts: what a batch or a job allocates goes at its end.

use std::ffi::CStr;

use pgrx::pg_sys;

/// A context under TopMemoryContext, deleted when dropped.
pub struct Context(pg_sys::MemoryContext);

impl Context {
    pub fn new(name: &'static CStr) -> Self {
        Self::keeping(name, 0)
    }

    /// One that keeps so many bytes when it is reset.
    pub fn keeping(name: &'static CStr, bytes: usize) -> Self {
        // SAFETY: the name is static, as the server wants it.
        Self(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::TopMemoryContext,
                name.as_ptr(),
                bytes,
                8 * 1024,
                8 * 1024 * 1024,
            )
        })
    }

    pub fn raw(&self) -> pg_sys::MemoryContext {
        self.0
    }

    /// Bytes that it has taken from the system.
    pub fn allocated(&self) -> usize {
        // SAFETY: the context lives as long as self.
        unsafe { (*self.0).mem_allocated }
    }

    /// Frees all that was allocated in it.
    pub fn reset(&self) {
        extern "C-unwind" {
            fn MemoryContextReset(context: pg_sys::MemoryContext);
        }
        // SAFETY: nothing of it is referred to by the callers any more; raises nothing: no guard.
        unsafe { MemoryContextReset(self.0) }
    }

    /// Runs `work` with this context current.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        // SAFETY: the context lives as long as self; after an ERROR whoever catches it switches back.
        unsafe {
            let old = pg_sys::MemoryContextSwitchTo(self.0);
            let result = work();
            pg_sys::MemoryContextSwitchTo(old);
            result
        }
    }
}

/// Runs `work`, which may end a transaction: contexts that were current inside go with it, so the one of
/// before is made current again.
pub fn around_transaction<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: called outside transactions, where a context is current that outlives them.
    unsafe {
        let old = pg_sys::CurrentMemoryContext;
        let result = work();
        pg_sys::MemoryContextSwitchTo(old);
        result
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: not current when dropped.
        unsafe { pg_sys::MemoryContextDelete(self.0) }
    }
}
