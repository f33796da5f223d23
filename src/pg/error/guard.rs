//! Where an ERROR of the server becomes an unwinding of our frames.

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

/// Runs calls of the server; with their ERROR our frames unwind, those of `work` are jumped over. As the guard
/// that each of the bindings has in it, but there once: there it is 2 kB of code between any two calls.
///
/// # Safety
/// On the main thread. Nothing in `work` is to be dropped.
#[inline]
pub unsafe fn guarded<T>(work: impl FnOnce() -> T) -> T {
    let mut work = Some(work);
    let mut result = None;
    boundary(&mut || result = work.take().map(|work| work()));
    result.expect("a guard that returns has run its work")
}

#[inline(never)]
unsafe fn boundary(work: &mut dyn FnMut()) {
    pg_guard_ffi_boundary(work);
}
