//! What a process keeps for itself.

use std::cell::RefCell;
use std::ops::Deref;

/// A static of this process. Every session and worker is a process with one thread, so this needs no look-up;
/// `thread_local!` of a shared library calls the dynamic linker each time, 17 times for a commit with a notice.
pub struct PerProcess<T>(T);

// SAFETY: the server runs the code of a library in a process's main thread only, and nothing in Pushy starts
// another.
unsafe impl<T> Sync for PerProcess<T> {}

impl<T> PerProcess<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    #[inline(always)]
    pub fn with<R>(&self, work: impl FnOnce(&T) -> R) -> R {
        work(&self.0)
    }
}

impl<T> Deref for PerProcess<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// As those of `std::thread::LocalKey`.
impl<T> PerProcess<RefCell<T>> {
    #[inline(always)]
    pub fn with_borrow<R>(&self, work: impl FnOnce(&T) -> R) -> R {
        work(&self.0.borrow())
    }

    #[inline(always)]
    pub fn with_borrow_mut<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.0.borrow_mut())
    }
}
