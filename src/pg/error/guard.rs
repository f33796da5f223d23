//! Where an ERROR of the server becomes an unwinding of our frames.

use pgrx::pg_sys::ffi::pg_guard_ffi_boundary;

/// Runs calls of the server; with their ERROR our frames unwind, those of `work` are jumped over. As the guard
/// that each of the bindings has in it, but there once: there it is 2 kB of code between any two calls.
///
/// # Safety
/// On the main thread. Nothing in `work` is to be dropped, and nothing in it unwinds, because the frame below it is one of C, where a
/// panic ends the process, and with it the server restarts: `work` calls functions of the server by declarations of our own or by
/// pointers. It calls none of the bindings, each of which has a guard in it, none of ours that has one, and nothing that panics
/// (tools/lint_rooms.py looks for calls of the first two kinds).
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
