//! Settings of the server: reserving our prefix, forcing values in workers, nesting.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;

/// Makes unknown settings under the prefix an error.
pub fn reserve_prefix(prefix: &CStr) {
    // SAFETY: the name is copied.
    unsafe {
        pg_sys::MarkGUCPrefixReserved(prefix.as_ptr());
    }
}

/// Background workers that the server has room for.
pub fn max_worker_processes() -> i32 {
    // SAFETY: reads a variable that does not change while the server runs.
    unsafe { pg_sys::max_worker_processes }
}

/// Those of them that parallel queries of all sessions may hold at a time.
pub fn max_parallel_workers() -> i32 {
    // SAFETY: reads a variable of this process.
    unsafe { pg_sys::max_parallel_workers }
}

/// Sets a setting for this process, over what the role or the database says; RESET goes there too.
pub fn force(name: &CStr, value: &str) {
    let value = CString::new(value).expect("no NUL in a setting");
    // SAFETY: both strings are copied; a worker's own session.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}

/// What a setting is now; None where there is none of this name.
pub fn value(name: &CStr) -> Option<CString> {
    // SAFETY: a look-up that raises nothing for a name that is missing; the text is copied.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
    }
}

/// Sets a setting as ALTER DATABASE would have: what the role says stands before it, and RESET goes there.
pub fn set_for_database(name: &CStr, value: &CStr) {
    // SAFETY: both strings are copied; a worker's own session.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_DATABASE,
        );
    }
}

/// Settings changed until it is dropped are put back then, plain SET and SET ROLE included.
pub struct Nested(i32);

pub fn nest() -> Nested {
    extern "C-unwind" {
        fn NewGUCNestLevel() -> i32;
    }
    // SAFETY: counts up a variable of this process and raises nothing: no guard.
    Nested(unsafe { NewGUCNestLevel() })
}

impl Nested {
    /// Undoes what was set since.
    pub fn undo(self) {
        // SAFETY: the level is the innermost that is open: levels of subtransactions inside have ended.
        unsafe { pg_sys::AtEOXact_GUC(false, self.0) }
    }
}

/// Reads the configuration files again if the postmaster said so; true when it did.
pub fn reload_if_asked() -> bool {
    // SAFETY: a flag set by the signal handler; outside transactions.
    unsafe {
        let asked = std::ptr::addr_of_mut!(pg_sys::ConfigReloadPending);
        if *asked == 0 {
            return false;
        }
        *asked = 0;
        pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        true
    }
}
