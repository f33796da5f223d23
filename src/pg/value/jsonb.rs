//! Values of type jsonb.

use std::ffi::{CStr, CString};

use pgrx::pg_sys::{self, jbvType, Datum, JsonbIteratorToken, Oid};

use crate::errors::Result;
use crate::pg::function::Answer;
use crate::pg::interrupts;
use crate::pg::text;
use crate::pg::value::Elements;
use crate::pg::varlena::Varlena;

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

/// What a jsonb is, or has inside. It is never written as text to be read: a number of a few bytes may be written as a hundred thousand.
pub enum Part<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(String),
    Array(Inside<'a>),
    Object(Inside<'a>),
}

/// The elements of an array, or the members of an object.
#[derive(Clone, Copy)]
pub struct Inside<'a>(&'a pg_sys::JsonbContainer);

#[derive(Clone, Copy)]
pub struct Number<'a>(&'a pg_sys::NumericData);

impl Number<'_> {
    /// As the server writes it.
    fn written(self) -> String {
        let datum = Datum::from(std::ptr::from_ref(self.0));
        // SAFETY: a numeric; numeric_out answers a palloc'd C string.
        unsafe {
            let text = pg_sys::OidOutputFunctionCall(Oid::from(pg_sys::F_NUMERIC_OUT), datum);
            let written = CStr::from_ptr(text).to_string_lossy().into_owned();
            pg_sys::pfree(text.cast());
            written
        }
    }

    pub fn as_f64(self) -> f64 {
        self.written().parse().unwrap_or(f64::NAN)
    }

    pub fn as_i64(self) -> Option<i64> {
        self.written().parse().ok()
    }
}

/// # Safety
/// `datum` is a jsonb that lives as long as what is read of it.
pub unsafe fn read<'a>(datum: Datum) -> Result<Part<'a>> {
    let plain = Varlena::of(datum).plain().cast::<pg_sys::Jsonb>();
    let inside = Inside(&(*plain).root);
    if inside.is_scalar() {
        let mut elements = inside.elements()?;
        Ok(elements.next().map_or(Part::Null, |(part, _)| part))
    } else {
        Ok(inside.into())
    }
}

impl<'a> From<Inside<'a>> for Part<'a> {
    fn from(inside: Inside<'a>) -> Self {
        match inside.0.header & pg_sys::JB_FOBJECT {
            0 => Part::Array(inside),
            _ => Part::Object(inside),
        }
    }
}

impl<'a> Inside<'a> {
    fn is_scalar(self) -> bool {
        self.0.header & pg_sys::JB_FSCALAR != 0
    }

    /// Of an array, each with itself as a jsonb.
    pub fn elements(self) -> Result<Elements<(Part<'a>, Whole)>> {
        let mut elements = Vec::new();
        self.walk(|token, value| {
            if token == JsonbIteratorToken::WJB_ELEM {
                elements.push((part(value)?, Whole(*value)));
            }
            Ok(())
        })?;
        Ok(Elements::new(elements))
    }

    /// Of an object: names, values, and each value as a jsonb.
    pub fn members(self) -> Result<Elements<(String, Part<'a>, Whole)>> {
        let (mut members, mut name) = (Vec::new(), String::new());
        self.walk(|token, value| {
            match token {
                JsonbIteratorToken::WJB_KEY => name = text_of(value)?,
                JsonbIteratorToken::WJB_VALUE => {
                    members.push((std::mem::take(&mut name), part(value)?, Whole(*value)));
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(Elements::new(members))
    }

    /// What is right inside of it.
    fn walk(
        self,
        mut each: impl FnMut(JsonbIteratorToken::Type, &pg_sys::JsonbValue) -> Result<()>,
    ) -> Result<()> {
        let container = std::ptr::from_ref(self.0).cast_mut();
        // SAFETY: a container; the iterator only reads it, and fills `value` for each token but the last.
        unsafe {
            let mut value = std::mem::zeroed();
            let mut iterator = pg_sys::JsonbIteratorInit(container);
            loop {
                let token = pg_sys::JsonbIteratorNext(&mut iterator, &mut value, true);
                if token == JsonbIteratorToken::WJB_DONE {
                    return Ok(());
                }
                interrupts::check();
                each(token, &value)?;
            }
        }
    }
}

/// A value inside a jsonb.
#[derive(Clone, Copy)]
pub struct Whole(pg_sys::JsonbValue);

impl Whole {
    /// As a jsonb of its own, in the current memory context.
    pub fn to_jsonb(mut self) -> Answer {
        // SAFETY: as the iterator has filled it, from a jsonb that still lives.
        Answer::Datum(Datum::from(unsafe {
            pg_sys::JsonbValueToJsonb(&mut self.0)
        }))
    }
}

fn part<'a>(value: &pg_sys::JsonbValue) -> Result<Part<'a>> {
    // SAFETY: the type says which of the union it is; what it points to lies in the jsonb.
    Ok(unsafe {
        match value.type_ {
            jbvType::jbvBool => Part::Bool(value.val.boolean),
            jbvType::jbvNumeric => Part::Number(Number(&*value.val.numeric)),
            jbvType::jbvString => Part::Text(text_of(value)?),
            jbvType::jbvBinary => Inside(&*value.val.binary.data).into(),
            _ => Part::Null,
        }
    })
}

fn text_of(value: &pg_sys::JsonbValue) -> Result<String> {
    // SAFETY: a string or a name; its bytes lie in the jsonb.
    let bytes = unsafe {
        let string = value.val.string;
        std::slice::from_raw_parts(string.val.cast::<u8>(), string.len as usize)
    };
    text::decode(bytes.to_vec())
}
