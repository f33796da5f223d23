//! The search path under which Pushy's own SQL is read: `pg_catalog` and nothing a user could plant things in.
//!
//! Operators are looked up by name too, and some have no place to write a schema: the `=` of CASE x WHEN, of NULLIF
//! and of IN. A statement that runs with the owner's rights would call a caller's own.

use std::ffi::{c_int, CStr};

use pgrx::pg_sys;

use crate::pg::major;

/// The path is pinned until this is dropped; an ERROR that unwinds drops it, and any other way out is an abort, which
/// restores the path too.
pub struct Pinned(c_int);

/// The setting search_path as it stands. What it means is another for another role ("$user"), and when schemas come and go.
pub fn setting<'a>() -> &'a CStr {
    // SAFETY: the variable of the setting, which is never null after the start of a session; who keeps the text copies it
    // before anything can set it.
    unsafe { CStr::from_ptr(pg_sys::namespace_search_path) }
}

/// Pins the path to pg_catalog.
pub fn pin() -> Pinned {
    Pinned(major::begin_catalog_path())
}

impl Drop for Pinned {
    fn drop(&mut self) {
        major::end_catalog_path(self.0);
    }
}
