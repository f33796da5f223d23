//! The search path under which Pushy's own SQL is read: `pg_catalog` and nothing a user could plant things in.
//!
//! Operators are looked up by name too, and some have no place to write a schema: the `=` of CASE x WHEN, of NULLIF
//! and of IN. A statement that runs with the owner's rights would call a caller's own.

#[cfg(any(feature = "pg15", feature = "pg16"))]
use pgrx::pg_sys;

use super::guard::guarded;

/// The path is pinned until this is dropped; an ERROR that unwinds drops it, and any other way out is an abort, which
/// restores the path too.
pub struct Pinned {
    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    level: i32,
    _not_made_elsewhere: (),
}

/// Pins the path to pg_catalog: temporary objects are not looked for either.
#[cfg(any(feature = "pg15", feature = "pg16"))]
pub fn pin() -> Pinned {
    extern "C-unwind" {
        #[link_name = "PushOverrideSearchPath"]
        fn raw_push(path: *mut pg_sys::OverrideSearchPath);
    }
    let mut path = pg_sys::OverrideSearchPath {
        schemas: std::ptr::null_mut(),
        addCatalog: true,
        addTemp: false,
        generation: 0,
    };
    // SAFETY: the path is copied. A setting would cost ten times as much, and plans made under a path that was pushed
    // stay valid whatever search_path says.
    unsafe { guarded(|| raw_push(&mut path)) }
    Pinned {
        _not_made_elsewhere: (),
    }
}

/// Pins search_path to `pg_catalog, pg_temp`, which is all that servers from 17 on offer.
#[cfg(not(any(feature = "pg15", feature = "pg16")))]
pub fn pin() -> Pinned {
    extern "C-unwind" {
        fn NewGUCNestLevel() -> i32;
        #[link_name = "RestrictSearchPath"]
        fn raw_restrict();
    }
    // SAFETY: as maintenance commands of the server do it before they run functions of a table's owner.
    let level = unsafe {
        guarded(|| {
            let level = NewGUCNestLevel();
            raw_restrict();
            level
        })
    };
    Pinned {
        level,
        _not_made_elsewhere: (),
    }
}

impl Drop for Pinned {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    fn drop(&mut self) {
        extern "C-unwind" {
            #[link_name = "PopOverrideSearchPath"]
            fn raw_pop();
        }
        // SAFETY: pushed at this level of subtransactions: those begun since have ended, so it raises nothing.
        unsafe { raw_pop() }
    }

    #[cfg(not(any(feature = "pg15", feature = "pg16")))]
    fn drop(&mut self) {
        extern "C-unwind" {
            #[link_name = "AtEOXact_GUC"]
            fn raw_end_nest_level(is_commit: bool, level: i32);
        }
        // SAFETY: the innermost level that is open: those of subtransactions begun since have ended.
        unsafe { raw_end_nest_level(false, self.level) }
    }
}
