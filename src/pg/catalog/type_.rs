//! What the catalogs say of a type.

use pgrx::pg_sys::{self, Oid};

use crate::pg::catalog::cached_row;
use crate::pg::{identifier, text};

/// How values of a type are found equal: the `=` of its default order or hash, which no search path can hide.
pub struct Equality {
    /// OPERATOR(…), as SQL.
    pub operator: String,
    /// What to cast a value to, so that exactly this operator is found.
    pub cast: Option<String>,
}

/// None for a type that has no equality (json, point).
pub fn equality(type_oid: Oid) -> Option<Equality> {
    // SAFETY: the type cache raises for a type that does not exist; the caller has it from pg_attribute.
    unsafe {
        let entry = pg_sys::lookup_type_cache(type_oid, pg_sys::TYPECACHE_EQ_OPR as i32);
        let cache = pg_sys::SysCacheIdentifier::OPEROID;
        let read = |form: &pg_sys::FormData_pg_operator| {
            let name = text::from_c(form.oprname.data.as_ptr());
            (form.oprnamespace, form.oprleft, name)
        };
        let (schema, takes, name) = cached_row::of_oid(cache, (*entry).eq_opr, read)?;
        let schema_name = pg_sys::get_namespace_name(schema);
        if schema_name.is_null() {
            return None;
        }
        // Whoever may make operators beside it could make a closer one. Nobody may in pg_catalog, and there
        // some take any type of a kind.
        let is_of_server = schema == Oid::from(pg_sys::PG_CATALOG_NAMESPACE);
        let cast = (!is_of_server && takes != type_oid)
            .then(|| text::from_c(pg_sys::format_type_be_qualified(takes)));
        Some(Equality {
            operator: format!(
                "OPERATOR({}.{name})",
                identifier::quoted(&text::from_c(schema_name))
            ),
            cast,
        })
    }
}

/// Whether values of a type are rows, of which IS NULL says something else than of others.
pub fn is_row(type_oid: Oid) -> bool {
    // SAFETY: syscache look-ups.
    unsafe { pg_sys::type_is_rowtype(type_oid) }
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
