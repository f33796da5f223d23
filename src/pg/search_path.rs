//! The search path under which Pushy's own SQL is read: `pg_catalog` and nothing a user could plant things in.
//!
//! Operators are looked up by name too, and some have no place to write a schema: the `=` of CASE x WHEN, of NULLIF
//! and of IN. A statement that runs with the owner's rights would call a caller's own.

use std::ffi::c_int;

use super::major;

/// The path is pinned until this is dropped; an ERROR that unwinds drops it, and any other way out is an abort, which
/// restores the path too.
pub struct Pinned(c_int);

/// Pins the path to pg_catalog.
pub fn pin() -> Pinned {
    Pinned(major::begin_catalog_path())
}

impl Drop for Pinned {
    fn drop(&mut self) {
        major::end_catalog_path(self.0);
    }
}
