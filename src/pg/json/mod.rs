//! Values as JSON that a JavaScript client reads back without loss, and that shows nothing of the
//! session's settings.
//!
//! | type | JSON |
//! | --- | --- |
//! | boolean, smallint, integer, real, double precision | as such; NaN and the infinities as strings |
//! | bigint, numeric, money | a number where a double holds it exactly, else a string |
//! | date, timestamp, timestamptz, interval | ISO 8601, timestamptz in UTC |
//! | bytea | `"\\x…"` |
//! | json, jsonb | as they are |
//! | arrays, composites | arrays, objects; the same rules inside |
//! | domains | as the type below |
//! | types of users with a cast to json | what the cast says |
//! | all others | the text that the type's output function gives |
//! | what is nested too deeply (see [`Nesting`]) | an error |

pub mod limit;
mod nested;
mod write;

use std::cell::Cell;

use pgrx::pg_sys::{self, Oid};

use super::invalidation::{self, Row};
use super::session_format::{self, Formats};
use nested::{Array, Composite};
pub use write::list;

/// How values of one type are written.
pub enum ValueWriter {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    Numeric,
    Money,
    Text,
    Name,
    Char,
    Uuid,
    Date,
    Timestamp,
    Timestamptz,
    Interval,
    Bytea,
    Json,
    Jsonb,
    Array(Box<Array>),
    Composite(Composite),
    /// By the type's output function.
    Output {
        function: Oid,
        formats: Formats,
        of_user: bool,
    },
    /// By a user's function from the type to json.
    Cast(Oid),
    /// Not at all: it lies too deep.
    TooDeep,
}

/// How much further types may be nested in what is written: a tenant makes types of thousands of levels, each of which takes
/// stack when a value is written, and of thirty levels of two columns each, which are a thousand million writers. What is beyond is
/// refused when there is a value: as text it would double with each level, because the server quotes quotes.
#[derive(Clone, Copy)]
pub struct Nesting<'a> {
    depth: u32,
    left: &'a Cell<u32>,
}

impl<'a> Nesting<'a> {
    const MOST_LEVELS: u32 = 64;
    /// Of all types together that are nested in one column.
    const MOST_WRITERS: u32 = 10_000;

    pub fn budget() -> Cell<u32> {
        Cell::new(Self::MOST_WRITERS)
    }

    /// At a level `depth` below a table's column; takes from `left`.
    pub fn at(depth: u32, left: &'a Cell<u32>) -> Self {
        Self { depth, left }
    }

    /// What is inside; None: it is too much.
    fn inner(self) -> Option<Self> {
        let left = self.left.get().checked_sub(1)?;
        self.left.set(left);
        (self.depth < Self::MOST_LEVELS).then_some(Self {
            depth: self.depth + 1,
            left: self.left,
        })
    }
}

impl ValueWriter {
    /// The writer for a type, as the catalogs are now.
    pub fn for_type(type_oid: Oid, typmod: i32, nesting: Nesting<'_>) -> Self {
        // SAFETY: syscache look-ups of an existing type.
        unsafe {
            let mut typmod = typmod;
            let type_oid = pg_sys::getBaseTypeAndTypmod(type_oid, &mut typmod);
            Self::builtin(type_oid).unwrap_or_else(|| Self::by_catalog(type_oid, nesting))
        }
    }

    fn builtin(type_oid: Oid) -> Option<Self> {
        Some(match type_oid {
            pg_sys::BOOLOID => Self::Bool,
            pg_sys::INT2OID => Self::Int2,
            pg_sys::INT4OID => Self::Int4,
            pg_sys::INT8OID => Self::Int8,
            pg_sys::FLOAT4OID => Self::Float4,
            pg_sys::FLOAT8OID => Self::Float8,
            pg_sys::NUMERICOID => Self::Numeric,
            pg_sys::MONEYOID => Self::Money,
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID => Self::Text,
            pg_sys::NAMEOID => Self::Name,
            pg_sys::CHAROID => Self::Char,
            pg_sys::UUIDOID => Self::Uuid,
            pg_sys::DATEOID => Self::Date,
            pg_sys::TIMESTAMPOID => Self::Timestamp,
            pg_sys::TIMESTAMPTZOID => Self::Timestamptz,
            pg_sys::INTERVALOID => Self::Interval,
            pg_sys::BYTEAOID => Self::Bytea,
            pg_sys::JSONOID => Self::Json,
            pg_sys::JSONBOID => Self::Jsonb,
            _ => return None,
        })
    }

    /// The order is that of json_categorize_type (json.c).
    unsafe fn by_catalog(type_oid: Oid, nesting: Nesting<'_>) -> Self {
        let element = pg_sys::get_element_type(type_oid);
        let kind = pg_sys::get_typtype(type_oid) as u8;
        let is_nested = element != Oid::INVALID || kind == pg_sys::TYPTYPE_COMPOSITE;
        let inner = nesting.inner().filter(|_| is_nested);
        match inner {
            Some(inner) if element != Oid::INVALID => {
                return Self::Array(Box::new(Array::of(element, inner)))
            }
            Some(inner) => return Self::Composite(Composite::of(type_oid, inner)),
            None if is_nested => return Self::TooDeep,
            None => {}
        }
        if let Some(function) = cast_to_json(type_oid) {
            return Self::Cast(function);
        }
        let mut function = Oid::INVALID;
        let mut is_varlena = false;
        pg_sys::getTypeOutputInfo(type_oid, &mut function, &mut is_varlena);
        if is_varlena && is_textout(function) {
            return Self::Text;
        }
        Self::Output {
            function,
            formats: session_format::of_type(type_oid, kind),
            of_user: is_written_by_user(type_oid, kind),
        }
    }

    /// Whether writing runs code of users, which may raise an error.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
    pub fn can_fail(&self) -> bool {
        match self {
            Self::Cast(_) | Self::TooDeep => true,
            Self::Output { of_user, .. } => *of_user,
            Self::Array(array) => array.element.can_fail(),
            Self::Composite(composite) => composite.columns().can_fail(),
            _ => false,
        }
    }

    /// Whether what is written may be JSON that the type jsonb refuses: that of others may hold zeros, and
    /// numbers beyond numeric.
    pub fn may_be_no_jsonb(&self) -> bool {
        match self {
            Self::Json | Self::Cast(_) => true,
            Self::Array(array) => array.element.may_be_no_jsonb(),
            Self::Composite(composite) => composite.columns().may_be_no_jsonb(),
            _ => false,
        }
    }
}

fn is_of_user(oid: Oid) -> bool {
    oid.to_u32() >= pg_sys::FirstNormalObjectId
}

/// The function of a user's cast to json, which to_json would call too.
unsafe fn cast_to_json(type_oid: Oid) -> Option<Oid> {
    if !is_of_user(type_oid) {
        return None;
    }
    // A watch is kept with the cast that it has found, or has not.
    invalidation::depend_on_row(Row::cast(type_oid, pg_sys::JSONOID));
    let mut function = Oid::INVALID;
    let path = pg_sys::find_coercion_pathway(
        pg_sys::JSONOID,
        type_oid,
        pg_sys::CoercionContext::COERCION_EXPLICIT,
        &mut function,
    );
    (path == pg_sys::CoercionPathType::COERCION_PATH_FUNC).then_some(function)
}

/// Whether an output function is that of text under another name, as citext's is.
unsafe fn is_textout(function: Oid) -> bool {
    let address = |oid: Oid| {
        let mut info = pg_sys::FmgrInfo::default();
        pg_sys::fmgr_info(oid, &mut info);
        info.fn_addr.map(|function| function as usize)
    };
    address(function) == address(Oid::from(pg_sys::F_TEXTOUT))
}

/// Whether an output function is code of users: for a range, that of what it ranges over.
unsafe fn is_written_by_user(type_oid: Oid, kind: u8) -> bool {
    let (mut type_oid, mut kind) = (type_oid, kind);
    for _ in 0..Nesting::MOST_LEVELS {
        if !is_of_user(type_oid) || kind == pg_sys::TYPTYPE_ENUM {
            return false;
        }
        let Some(bound) = session_format::bound_type(type_oid, kind) else {
            return true;
        };
        (type_oid, kind) = (bound, pg_sys::get_typtype(bound) as u8);
    }
    true
}
