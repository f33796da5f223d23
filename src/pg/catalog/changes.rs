//! Noticing that functions, roles, memberships, schemas, types or databases have changed, so that what was found out of
//! them can be kept until then.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU64, Ordering};

use pgrx::{pg_guard, pg_sys};

/// This process's count of invalidations.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// Counts from now on; once per process. Messages of others arrive when a transaction begins and when a lock
/// is taken, as they do for the server's own caches.
pub fn watch() {
    use pg_sys::SysCacheIdentifier::{
        AUTHMEMROLEMEM, AUTHOID, DATABASEOID, NAMESPACEOID, PROCOID, TYPEOID,
    };
    for cache in [
        AUTHMEMROLEMEM,
        AUTHOID,
        DATABASEOID,
        NAMESPACEOID,
        PROCOID,
        TYPEOID,
    ] {
        // SAFETY: the callback stays valid as long as the library is loaded.
        unsafe {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as c_int,
                Some(on_change),
                pg_sys::Datum::from(0usize),
            );
        }
    }
}

/// What was read while this was the count is still true while it is.
pub fn count() -> u64 {
    CHANGES.load(Ordering::Relaxed)
}

#[pg_guard]
unsafe extern "C-unwind" fn on_change(_arg: pg_sys::Datum, _cache: c_int, _hash: u32) {
    CHANGES.fetch_add(1, Ordering::Relaxed);
}
