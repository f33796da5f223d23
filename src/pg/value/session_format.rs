//! Output functions whose text depends on the session, run as if it had the settings of a notice.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Oid};

/// Which settings an output function looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// None.
    Fixed,
    /// Those for dates, numbers and bytes.
    Values,
    /// Those for names of objects: the search path and the wish for quotes.
    Names,
}

const VALUES: [(&CStr, &CStr); 6] = [
    (c"DateStyle", c"ISO"),
    (c"IntervalStyle", c"iso_8601"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"1"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
];

const NAMES: [(&CStr, &CStr); 2] = [
    (c"search_path", c"pg_catalog"),
    (c"quote_all_identifiers", c"off"),
];

/// What the output function of a type looks at; `kind` is its typtype. A type of which nothing is known
/// may look at any setting for values.
///
/// # Safety
/// The type exists.
pub unsafe fn of_type(type_oid: Oid, kind: u8) -> Formats {
    /// Ranges over ranges have as many levels as somebody has made types: no walk down them without an end.
    const MOST_LEVELS: usize = 64;
    let (mut type_oid, mut kind) = (type_oid, kind);
    for _ in 0..MOST_LEVELS {
        let Some(bound) = bound_type(type_oid, kind) else {
            return of_scalar(type_oid, kind);
        };
        (type_oid, kind) = (bound, pg_sys::get_typtype(bound) as u8);
    }
    Formats::Values
}

fn of_scalar(type_oid: Oid, kind: u8) -> Formats {
    match type_oid {
        pg_sys::REGPROCOID
        | pg_sys::REGPROCEDUREOID
        | pg_sys::REGOPEROID
        | pg_sys::REGOPERATOROID
        | pg_sys::REGCLASSOID
        | pg_sys::REGTYPEOID
        | pg_sys::REGROLEOID
        | pg_sys::REGNAMESPACEOID
        | pg_sys::REGCONFIGOID
        | pg_sys::REGDICTIONARYOID
        | pg_sys::REGCOLLATIONOID => Formats::Names,
        pg_sys::TIMEOID
        | pg_sys::TIMETZOID
        | pg_sys::INT4OID
        | pg_sys::INT8OID
        | pg_sys::NUMERICOID
        | pg_sys::OIDOID
        | pg_sys::XIDOID
        | pg_sys::XID8OID
        | pg_sys::CIDOID
        | pg_sys::TIDOID
        | pg_sys::PG_LSNOID
        | pg_sys::INETOID
        | pg_sys::CIDROID
        | pg_sys::MACADDROID
        | pg_sys::MACADDR8OID
        | pg_sys::BITOID
        | pg_sys::VARBITOID
        | pg_sys::TSVECTOROID
        | pg_sys::TSQUERYOID
        | pg_sys::XMLOID
        | pg_sys::JSONPATHOID => Formats::Fixed,
        _ if kind == pg_sys::TYPTYPE_ENUM => Formats::Fixed,
        _ => Formats::Values,
    }
}

/// What a range or multirange ranges over, below its domains.
///
/// # Safety
/// The type exists; `kind` is its typtype.
pub unsafe fn bound_type(type_oid: Oid, kind: u8) -> Option<Oid> {
    if kind == pg_sys::TYPTYPE_MULTIRANGE {
        let range = pg_sys::get_multirange_range(type_oid);
        return bound_type(range, pg_sys::TYPTYPE_RANGE);
    }
    (kind == pg_sys::TYPTYPE_RANGE)
        .then(|| pg_sys::getBaseType(pg_sys::get_range_subtype(type_oid)))
}

/// Runs `work` under the settings of a notice. Only those that differ are set.
pub fn with<T>(formats: Formats, work: impl FnOnce() -> T) -> T {
    let wanted: &[(&CStr, &CStr)] = match formats {
        Formats::Fixed => return work(),
        Formats::Values => &VALUES,
        Formats::Names => &NAMES,
    };
    // SAFETY: the protocol of postgres_fdw's set_transmission_modes; after an ERROR the abort of the
    // (sub)transaction restores the settings.
    unsafe {
        let mut level = None;
        for (name, value) in wanted {
            let current = pg_sys::GetConfigOption(name.as_ptr(), false, false);
            if is_set(CStr::from_ptr(current), value) {
                continue;
            }
            level = level.or_else(|| Some(pg_sys::NewGUCNestLevel()));
            pg_sys::set_config_option(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_USERSET,
                pg_sys::GucSource::PGC_S_SESSION,
                pg_sys::GucAction::GUC_ACTION_SAVE,
                true,
                0,
                false,
            );
        }
        let answer = work();
        if let Some(level) = level {
            pg_sys::AtEOXact_GUC(true, level);
        }
        answer
    }
}

/// DateStyle has an order of fields behind the comma, which ISO output does not use.
fn is_set(current: &CStr, wanted: &CStr) -> bool {
    current == wanted || (wanted == c"ISO" && current.to_bytes().starts_with(b"ISO,"))
}
