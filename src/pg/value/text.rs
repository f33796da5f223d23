//! Text between the database's encoding and Rust's UTF-8.

use std::borrow::Cow;
use std::ffi::CStr;

use pgrx::pg_sys;

use crate::errors::{Error, Result, SqlState};

extern "C-unwind" {
    /// Without the guard of the bindings, for [`crate::pg::subtransaction::protected`].
    #[link_name = "OidInputFunctionCall"]
    fn raw_oid_input_function_call(
        function: pg_sys::Oid,
        input: *mut std::ffi::c_char,
        element: pg_sys::Oid,
        typmod: i32,
    ) -> pg_sys::Datum;
}

/// The bytes of a text value, detoasted and copied.
///
/// # Safety
/// `datum` is a text (or bytea, jsonb) value.
pub unsafe fn bytes_from_datum(datum: pg_sys::Datum) -> Vec<u8> {
    let packed = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
    let length = pgrx::varsize_any_exhdr(packed);
    let data = pgrx::vardata_any(packed).cast::<u8>();
    let bytes = std::slice::from_raw_parts(data, length).to_vec();
    if !std::ptr::eq(packed, datum.cast_mut_ptr()) {
        pg_sys::pfree(packed.cast());
    }
    bytes
}

/// A value of variable length as one flat piece, header included.
///
/// The caller passes a varlena.
pub fn flat_bytes(datum: pg_sys::Datum) -> Vec<u8> {
    // SAFETY: see above; detoasting answers the value itself, or a palloc'd copy.
    unsafe {
        let flat = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
        std::slice::from_raw_parts(flat.cast::<u8>(), pgrx::varsize_any(flat)).to_vec()
    }
}

/// A copy of such a piece in the current memory context, as a value.
pub fn datum_of_flat(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: as many bytes as allocated; palloc aligns for every type.
    unsafe {
        let copy = pg_sys::palloc(bytes.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        pg_sys::Datum::from(copy)
    }
}

/// JSON text in the server's encoding as a flat value of type jsonb; an error where jsonb cannot hold it.
pub fn jsonb(json: &[u8]) -> Result<Vec<u8>> {
    let json = std::ffi::CString::new(json).expect("JSON holds no NUL");
    // SAFETY: jsonb_in reads a C string and answers a palloc'd jsonb; errors come back as data.
    unsafe {
        let value = crate::pg::subtransaction::protected(|| {
            raw_oid_input_function_call(
                pg_sys::Oid::from(pg_sys::F_JSONB_IN),
                json.as_ptr().cast_mut(),
                pg_sys::JSONBOID,
                -1,
            )
        })?;
        let bytes = flat_bytes(value);
        pg_sys::pfree(value.cast_mut_ptr());
        Ok(bytes)
    }
}

/// Text as UTF-8, whatever the database's encoding.
///
/// # Safety
/// `datum` is a text value.
pub unsafe fn from_datum(datum: pg_sys::Datum) -> Result<String> {
    decode(bytes_from_datum(datum))
}

/// Bytes in the database's encoding as UTF-8. In SQL_ASCII nothing is known of the bytes: what is
/// not UTF-8 is refused.
pub fn decode(bytes: Vec<u8>) -> Result<String> {
    // SAFETY: pg_server_to_any reads `bytes.len()` bytes and answers its argument when there is
    // nothing to convert, else a palloc'd string.
    let bytes = unsafe {
        let encoding = pg_sys::GetDatabaseEncoding();
        // Of SQL_ASCII the server converts nothing, and its error says neither which text it was nor what to do.
        if encoding == pg_sys::pg_enc::PG_UTF8 as i32
            || encoding == pg_sys::pg_enc::PG_SQL_ASCII as i32
        {
            bytes
        } else {
            let given = bytes.as_ptr().cast_mut().cast();
            let converted =
                pg_sys::pg_server_to_any(given, bytes.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32);
            if std::ptr::eq(converted, given) {
                bytes
            } else {
                CStr::from_ptr(converted).to_bytes().to_vec()
            }
        }
    };
    String::from_utf8(bytes).map_err(|error| {
        Error::new(
            SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            format!("\"{}\" is not UTF-8", escaped(error.as_bytes())),
        )
        .hint("In an SQL_ASCII database names and keys must be UTF-8.")
    })
}

/// Bytes in the database's encoding as UTF-8, for messages: those that are no character of it, or of
/// UTF-8, as `\xe9`.
pub fn shown(bytes: &[u8]) -> String {
    crate::pg::catch::caught(|| decode(bytes.to_vec()))
        .ok()
        .and_then(Result::ok)
        .unwrap_or_else(|| escaped(bytes))
}

fn escaped(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|byte| match byte {
            b' '..=b'~' => char::from(*byte).to_string(),
            other => format!("\\x{other:02x}"),
        })
        .collect()
}

/// A message of the server as pgrx keeps it: its bytes, in the database's encoding, taken for UTF-8.
pub fn of_report(message: &str) -> String {
    // SAFETY: reads a variable of this process.
    let utf8 = unsafe { pg_sys::GetDatabaseEncoding() } == pg_sys::pg_enc::PG_UTF8 as i32;
    if utf8 || message.is_ascii() {
        message.to_owned()
    } else {
        // What could not be taken for UTF-8 is lost.
        shown(message.replace(char::REPLACEMENT_CHARACTER, "?").as_bytes())
    }
}

/// UTF-8 in the database's encoding.
pub fn encode(value: &str) -> Cow<'_, [u8]> {
    // SAFETY: pg_any_to_server reads `len` bytes; it answers its argument when there is nothing to
    // convert, else a NUL-terminated palloc'd string.
    unsafe {
        let given = value.as_ptr().cast_mut().cast();
        let converted =
            pg_sys::pg_any_to_server(given, value.len() as i32, pg_sys::pg_enc::PG_UTF8 as i32);
        if std::ptr::eq(converted, given) {
            Cow::Borrowed(value.as_bytes())
        } else {
            Cow::Owned(CStr::from_ptr(converted).to_bytes().to_vec())
        }
    }
}

/// The same for messages, which must not fail: what the encoding does not have becomes a question mark.
pub fn encode_lossy(value: &str) -> Cow<'_, [u8]> {
    if value.is_ascii() {
        return Cow::Borrowed(value.as_bytes());
    }
    crate::pg::catch::caught(|| encode(value)).unwrap_or_else(|_| {
        let ascii = |char: char| u8::try_from(char).ok().filter(u8::is_ascii);
        value
            .chars()
            .map(|char| ascii(char).unwrap_or(b'?'))
            .collect()
    })
}

/// A value of type name, cut as a name is.
pub fn to_name(value: &str) -> pg_sys::Datum {
    let name = std::ffi::CString::new(encode_lossy(value)).unwrap_or_default();
    // SAFETY: namein copies the string.
    unsafe {
        pgrx::direct_function_call_as_datum(
            pg_sys::namein,
            &[Some(pg_sys::Datum::from(name.as_ptr()))],
        )
        .expect("namein answers a name")
    }
}

/// A text value in the current memory context.
pub fn to_datum(value: &str) -> pg_sys::Datum {
    bytes_to_datum(&encode(value))
}

/// A text value of these bytes, which are in the database's encoding.
pub fn bytes_to_datum(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: reads exactly `len` bytes and copies them.
    unsafe {
        pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(
            bytes.as_ptr().cast(),
            bytes.len() as i32,
        ))
    }
}

/// A NUL-terminated string of the server as UTF-8, as [`shown`]: for names, and for messages.
///
/// # Safety
/// `string` is NUL-terminated, or null.
pub unsafe fn from_c(string: *const std::ffi::c_char) -> String {
    if string.is_null() {
        String::new()
    } else {
        shown(CStr::from_ptr(string).to_bytes())
    }
}

/// The first `most` bytes at most, cut between characters of the database's encoding.
pub fn cut(bytes: &[u8], most: usize) -> &[u8] {
    if bytes.len() <= most {
        return bytes;
    }
    // SAFETY: reads at most `len` bytes.
    let length =
        unsafe { pg_sys::pg_mbcliplen(bytes.as_ptr().cast(), bytes.len() as i32, most as i32) };
    &bytes[..length as usize]
}

/// As much of a text as has so many bytes, cut on a character.
pub fn cut_utf8(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// Names for a message, the first ones when there are many.
pub fn listed(names: &[&str]) -> String {
    const MOST: usize = 20;
    let quoted: Vec<String> = names
        .iter()
        .take(MOST)
        .map(|name| format!("\"{}\"", name.replace('"', "\"\"")))
        .collect();
    let more = if names.len() > MOST { ", …" } else { "" };
    quoted.join(", ") + more
}
