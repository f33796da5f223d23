//! Values of type jsonb.

use std::ffi::CString;

use pgrx::pg_sys::{self, Datum, Oid};

use crate::errors::Result;
use crate::pg::text;

/// Valid JSON in the database's encoding, without the NUL escape, as jsonb in the current memory context.
pub fn from_json(json: &[u8]) -> Datum {
    let json = CString::new(json).expect("no NUL in JSON");
    // SAFETY: jsonb_in takes a C string and answers a palloc'd value.
    unsafe {
        pg_sys::OidFunctionCall1Coll(
            Oid::from(pg_sys::F_JSONB_IN),
            Oid::INVALID,
            Datum::from(json.as_ptr()),
        )
    }
}

/// A jsonb as JSON.
///
/// # Safety
/// `datum` is a jsonb.
pub unsafe fn to_json(datum: Datum) -> Result<String> {
    let written = pg_sys::OidOutputFunctionCall(Oid::from(pg_sys::F_JSONB_OUT), datum);
    Ok(text::from_c(written))
}
