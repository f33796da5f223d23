//! A short lock in shared memory for sections that allocate nothing, raise nothing and call nothing.

use std::sync::atomic::{AtomicU32, Ordering};

/// Free when zero.
#[repr(transparent)]
pub struct Spinlock(AtomicU32);

impl Spinlock {
    /// Runs plain loads and stores alone, of a bounded number of slots at most. Never anything of the server inside.
    pub fn with<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut spins = 0u32;
        while self
            .0
            .compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed)
            .is_err()
        {
            spins += 1;
            if spins.is_multiple_of(64) {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
        let result = work();
        self.0.store(0, Ordering::Release);
        result
    }
}
