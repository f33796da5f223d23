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

/// Whether comparing two values, or writing one as text, runs code of the server's only: it cannot fail.
pub fn is_of_server(type_oid: Oid) -> bool {
    const FIRST_NORMAL_OID: u32 = 16384;
    // SAFETY: syscache look-ups of an existing type.
    unsafe {
        let base = pg_sys::getBaseType(type_oid);
        base.to_u32() < FIRST_NORMAL_OID || pg_sys::get_typtype(base) as u8 == pg_sys::TYPTYPE_ENUM
    }
}
