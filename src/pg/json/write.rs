//! Values written, each as its type wants it.

use std::ffi::CStr;

use pgrx::pg_sys::{self, Datum, Oid};
use pushy_core::json;

use super::{limit, Nesting, ValueWriter};
use crate::errors::{Error, SqlState};
use crate::pg::ereport;
use crate::pg::session_format::{self, Formats};
use crate::pg::subtransaction;
use crate::pg::varlena::Varlena;

impl ValueWriter {
    /// Appends a value that is not NULL. What it allocates in the current memory context is of the
    /// size of the value.
    ///
    /// # Safety
    /// `datum` is a value of the writer's type.
    #[cfg_attr(target_os = "linux", link_section = "commit_path")]
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
                with_text(text, |text| {
                    if limit::has(text.len(), out) {
                        json::numeric(text, out);
                    }
                });
            }
            Self::Money => json::money(datum.value() as i64, out),
            Self::Text => with_content(datum, 1, out, write_text),
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
            Self::Bytea => with_content(datum, 2, out, json::hex),
            Self::Json => with_content(datum, 1, out, |text, out| out.extend_from_slice(text)),
            Self::Jsonb | Self::Array(_) | Self::Composite(_) if !has_room(datum, 1, out) => {}
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
                with_text(text, |text| write_text(text, out));
            }),
            Self::TooDeep => ereport::raise(&too_deep()),
            Self::Cast(function) => session_format::with(Formats::Values, || {
                let text = of_user_code(|| raw_call(*function, Oid::INVALID, datum));
                with_content(text, 1, out, |text, out| out.extend_from_slice(text));
            }),
        }
    }
}

#[cold]
fn too_deep() -> Error {
    Error::new(
        SqlState::STATEMENT_TOO_COMPLEX,
        format!(
            "a value is nested more than {} levels deep, or has more than {} columns in all",
            Nesting::MOST_LEVELS,
            Nesting::MOST_WRITERS
        ),
    )
    .hint("Tell less of it with payload_expr, or payload => 'key'.")
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
            if !limit::is_left(out) {
                break;
            }
        }
        write(item, out);
    }
    out.push(brackets[1]);
}

/// Whether there is room for `times` the content of a value of variable length.
unsafe fn has_room(datum: Datum, times: usize, out: &mut Vec<u8>) -> bool {
    limit::has(times * Varlena::of(datum).length(), out)
}

/// Writes the content of a value of variable length, whose JSON is `times` as long at least: not even fetched
/// without room for that.
unsafe fn with_content(
    datum: Datum,
    times: usize,
    out: &mut Vec<u8>,
    write: impl FnOnce(&[u8], &mut Vec<u8>),
) {
    if has_room(datum, times, out) {
        Varlena::of(datum).with_content(|content| write(content, out));
    }
}

fn write_text(text: &[u8], out: &mut Vec<u8>) {
    if text.len() <= limit::LARGE || limit::has(json::quoted_length(text), out) {
        json::quoted(text, out);
    }
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
    subtransaction::protected(call).unwrap_or_else(|error| subtransaction::unwind(error))
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
    let bytes = CStr::from_ptr(text).to_bytes();
    if limit::has(bytes.len(), out) {
        out.extend_from_slice(bytes);
    }
    pg_sys::pfree(text.cast());
    if !std::ptr::eq(plain, datum.cast_mut_ptr()) {
        pg_sys::pfree(plain.cast());
    }
}
