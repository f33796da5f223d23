//! What the catalogs say of a type.

use pgrx::pg_sys::{self, Oid};

/// Whether values of a type can be compared with `=`, and so with IS DISTINCT FROM.
pub fn has_equality(type_oid: Oid) -> bool {
    // SAFETY: the type cache raises for a type that does not exist; the caller has it from pg_attribute.
    unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32);
        (*entry).eq_opr != Oid::INVALID
    }
}
