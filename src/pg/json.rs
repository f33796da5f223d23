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

use std::cell::RefCell;
use std::ffi::CStr;
use std::rc::Rc;

use pgrx::pg_sys::{self, Datum, Oid};
use pushy_core::json;

use super::columns::{Columns, Tuple};
use super::session_format::{self, Formats};
use super::subtransaction;
use super::varlena::Varlena;

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
}

pub struct Array {
    element: ValueWriter,
    type_oid: Oid,
    length: i16,
    by_value: bool,
    align: std::ffi::c_char,
}

/// A composite type, whose attributes may change under the tables that use it.
pub struct Composite {
    type_oid: Oid,
    known: RefCell<(u64, Rc<Columns>)>,
}

impl ValueWriter {
    /// The writer for a type, as the catalogs are now.
    pub fn for_type(type_oid: Oid, typmod: i32) -> Self {
        // SAFETY: syscache look-ups of an existing type.
        unsafe {
            let mut typmod = typmod;
            let type_oid = pg_sys::getBaseTypeAndTypmod(type_oid, &mut typmod);
            Self::builtin(type_oid).unwrap_or_else(|| Self::by_catalog(type_oid))
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
    unsafe fn by_catalog(type_oid: Oid) -> Self {
        let element = pg_sys::get_element_type(type_oid);
        if element != Oid::INVALID {
            return Self::Array(Box::new(Array::of(element)));
        }
        let kind = pg_sys::get_typtype(type_oid) as u8;
        if kind == pg_sys::TYPTYPE_COMPOSITE {
            return Self::Composite(Composite::of(type_oid));
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
    pub fn can_fail(&self) -> bool {
        match self {
            Self::Cast(_) => true,
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

    /// Appends a value that is not NULL. What it allocates in the current memory context is of the
    /// size of the value.
    ///
    /// # Safety
    /// `datum` is a value of the writer's type.
    pub unsafe fn write(&self, datum: Datum, out: &mut Vec<u8>) {
        match self {
            Self::Bool => out.extend_from_slice(match datum.value() & 0xff {
                0 => b"false".as_slice(),
                _ => b"true",
            }),
            Self::Int2 => json::integer(datum.value() as i16, out),
            Self::Int4 => json::integer(datum.value() as i32, out),
            Self::Int8 => json::int8(datum.value() as i64, out),
            Self::Float4 => json::float4(f32::from_bits(datum.value() as u32), out),
            Self::Float8 => json::float8(f64::from_bits(datum.value() as u64), out),
            Self::Numeric => {
                let text = pg_sys::OidOutputFunctionCall(Oid::from(pg_sys::F_NUMERIC_OUT), datum);
                with_text(text, |text| json::numeric(text, out));
            }
            Self::Money => json::money(datum.value() as i64, out),
            Self::Text => Varlena::of(datum).with_content(|text| json::quoted(text, out)),
            Self::Name => json::quoted(CStr::from_ptr(datum.cast_mut_ptr()).to_bytes(), out),
            Self::Char => write_char(datum.value() as u8, out),
            Self::Uuid => json::uuid(&*datum.cast_mut_ptr::<[u8; 16]>(), out),
            Self::Date => json::date(datum.value() as i32, out),
            Self::Timestamp => json::timestamp(datum.value() as i64, out),
            Self::Timestamptz => json::timestamptz(datum.value() as i64, out),
            Self::Interval => {
                let interval = &*datum.cast_mut_ptr::<pg_sys::Interval>();
                let value = json::Interval {
                    months: interval.month,
                    days: interval.day,
                    us: interval.time,
                };
                json::interval(value, out);
            }
            Self::Bytea => Varlena::of(datum).with_content(|bytes| json::hex(bytes, out)),
            Self::Json => Varlena::of(datum).with_content(|text| out.extend_from_slice(text)),
            Self::Jsonb => write_jsonb(datum, out),
            Self::Array(array) => array.write(datum, out),
            Self::Composite(composite) => composite.write(datum, out),
            Self::Output {
                function,
                formats,
                of_user,
            } => session_format::with(*formats, || {
                let text = if *of_user {
                    of_user_code(|| raw_output(*function, datum))
                } else {
                    pg_sys::OidOutputFunctionCall(*function, datum)
                };
                with_text(text, |text| json::quoted(text, out));
            }),
            Self::Cast(function) => session_format::with(Formats::Values, || {
                let text = of_user_code(|| raw_call(*function, Oid::INVALID, datum));
                Varlena::of(text).with_content(|text| out.extend_from_slice(text));
            }),
        }
    }
}

/// Appends a list between the two `brackets`.
pub fn list<T>(
    brackets: &[u8; 2],
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(brackets[0]);
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

/// A byte of type "char": above ASCII as 16 shows it, so that the text is valid in any encoding.
fn write_char(byte: u8, out: &mut Vec<u8>) {
    match byte {
        0 => json::quoted(b"", out),
        1..=127 => json::quoted(&[byte], out),
        _ => json::quoted(format!("\\{byte:03o}").as_bytes(), out),
    }
}

extern "C-unwind" {
    // Without the guard of the bindings, which loses what SQLSTATE an error of a user has.
    #[link_name = "OidOutputFunctionCall"]
    fn raw_output(function: Oid, value: Datum) -> *mut std::ffi::c_char;
    #[link_name = "OidFunctionCall1Coll"]
    fn raw_call(function: Oid, collation: Oid, value: Datum) -> Datum;
}

/// One call of a function of a user's; its error is caught where the row's is.
unsafe fn of_user_code<T>(call: impl FnOnce() -> T) -> T {
    subtransaction::protected(call).unwrap_or_else(|error| error.unwind())
}

unsafe fn with_text(text: *mut std::ffi::c_char, work: impl FnOnce(&[u8])) {
    work(CStr::from_ptr(text).to_bytes());
    pg_sys::pfree(text.cast());
}

unsafe fn write_jsonb(datum: Datum, out: &mut Vec<u8>) {
    let plain = Varlena::of(datum).plain();
    let size = pgrx::varlena::varsize_4b(plain);
    let root = &raw mut (*plain.cast::<pg_sys::Jsonb>()).root;
    let text = pg_sys::JsonbToCString(std::ptr::null_mut(), root, size as i32);
    out.extend_from_slice(CStr::from_ptr(text).to_bytes());
    pg_sys::pfree(text.cast());
    if !std::ptr::eq(plain, datum.cast_mut_ptr()) {
        pg_sys::pfree(plain.cast());
    }
}

impl Array {
    unsafe fn of(element: Oid) -> Self {
        let mut array = Self {
            element: ValueWriter::for_type(element, -1),
            type_oid: element,
            length: 0,
            by_value: false,
            align: 0,
        };
        pg_sys::get_typlenbyvalalign(
            element,
            &mut array.length,
            &mut array.by_value,
            &mut array.align,
        );
        array
    }

    unsafe fn write(&self, datum: Datum, out: &mut Vec<u8>) {
        let plain = Varlena::of(datum).plain().cast::<pg_sys::ArrayType>();
        let dimensions: Vec<usize> = {
            // ARR_DIMS: right behind the header.
            let sizes = plain.add(1).cast::<i32>();
            (0..(*plain).ndim as usize)
                .map(|dimension| *sizes.add(dimension) as usize)
                .collect()
        };
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        pg_sys::deconstruct_array(
            plain,
            self.type_oid,
            i32::from(self.length),
            self.by_value,
            self.align,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let values = std::slice::from_raw_parts(values, count as usize);
        let nulls = std::slice::from_raw_parts(nulls, count as usize);
        let mut elements = values.iter().copied().zip(nulls.iter().copied());
        match dimensions.as_slice() {
            [] => out.extend_from_slice(b"[]"),
            dimensions => self.write_dimension(dimensions, &mut elements, out),
        }
    }

    unsafe fn write_dimension(
        &self,
        dimensions: &[usize],
        elements: &mut dyn Iterator<Item = (Datum, bool)>,
        out: &mut Vec<u8>,
    ) {
        list(b"[]", 0..dimensions[0], out, |_, out| {
            match &dimensions[1..] {
                [] => match elements.next() {
                    Some((datum, false)) => self.element.write(datum, out),
                    _ => out.extend_from_slice(b"null"),
                },
                inner => self.write_dimension(inner, elements, out),
            }
        });
    }
}

impl Composite {
    unsafe fn of(type_oid: Oid) -> Self {
        Self {
            type_oid,
            known: RefCell::new(Self::look_up(type_oid)),
        }
    }

    unsafe fn look_up(type_oid: Oid) -> (u64, Rc<Columns>) {
        let identifier = pg_sys::assign_record_type_identifier(type_oid, -1);
        let columns = Self::with_desc(type_oid, |desc| Columns::from_desc(desc));
        (identifier, Rc::new(columns))
    }

    unsafe fn with_desc<T>(type_oid: Oid, work: impl FnOnce(pg_sys::TupleDesc) -> T) -> T {
        let desc = pg_sys::lookup_rowtype_tupdesc(type_oid, -1);
        let answer = work(desc);
        if (*desc).tdrefcount >= 0 {
            pg_sys::DecrTupleDescRefCount(desc);
        }
        answer
    }

    /// The attributes as they are now.
    fn columns(&self) -> Rc<Columns> {
        // SAFETY: type cache look-ups of an existing type.
        unsafe {
            let identifier = pg_sys::assign_record_type_identifier(self.type_oid, -1);
            let known = self.known.borrow().clone();
            if known.0 == identifier {
                return known.1;
            }
            let found = Self::look_up(self.type_oid);
            let columns = found.1.clone();
            self.known.replace(found);
            columns
        }
    }

    unsafe fn write(&self, datum: Datum, out: &mut Vec<u8>) {
        let columns = self.columns();
        let plain = Varlena::of(datum).plain();
        let mut tuple = pg_sys::HeapTupleData {
            t_len: pgrx::varlena::varsize_4b(plain) as u32,
            t_data: plain.cast(),
            ..Default::default()
        };
        let (values, nulls) = Self::with_desc(self.type_oid, |desc| {
            let count = (*desc).natts as usize;
            let mut values = vec![Datum::null(); count];
            let mut nulls = vec![true; count];
            pg_sys::heap_deform_tuple(&mut tuple, desc, values.as_mut_ptr(), nulls.as_mut_ptr());
            (values, nulls)
        });
        columns.write(&Tuple::of_values(&values, &nulls), out);
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
    if !is_of_user(type_oid) || kind == pg_sys::TYPTYPE_ENUM {
        return false;
    }
    let bound = session_format::bound_type(type_oid, kind);
    bound.is_none_or(|bound| is_written_by_user(bound, pg_sys::get_typtype(bound) as u8))
}
