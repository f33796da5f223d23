//! One-dimensional arrays of the few element types that our functions take and our tables hold.

use pgrx::pg_sys::{self, Datum, Oid};

use crate::errors::Result;
use crate::pg::function::{Answer, IntoAnswer};
use crate::pg::text;
use crate::pg::value::Uuid;
use crate::pg::value::{Elements, Timestamp};

/// How elements of a type are stored (pg_type.dat).
struct Element {
    oid: Oid,
    length: i32,
    by_value: bool,
    align: u8,
}

const TEXT: Element = Element {
    oid: pg_sys::TEXTOID,
    length: -1,
    by_value: false,
    align: b'i',
};
const NAME: Element = Element {
    oid: pg_sys::NAMEOID,
    length: pg_sys::NAMEDATALEN as i32,
    by_value: false,
    align: b'c',
};
const OID: Element = Element {
    oid: pg_sys::OIDOID,
    length: 4,
    by_value: true,
    align: b'i',
};
const INT2: Element = Element {
    oid: pg_sys::INT2OID,
    length: 2,
    by_value: true,
    align: b's',
};
const INT8: Element = Element {
    oid: pg_sys::INT8OID,
    length: 8,
    by_value: true,
    align: b'd',
};
const TIMESTAMPTZ: Element = Element {
    oid: pg_sys::TIMESTAMPTZOID,
    ..INT8
};
const UUID: Element = Element {
    oid: pg_sys::UUIDOID,
    length: 16,
    by_value: false,
    align: b'c',
};
const JSONB: Element = Element {
    oid: pg_sys::JSONBOID,
    length: -1,
    by_value: false,
    align: b'i',
};

/// The elements, NULL as None; they live as long as the array, or the current memory context.
fn elements(array: Datum, element: &Element) -> Elements<Option<Datum>> {
    // SAFETY: the callers say what the array is of; the arrays answered are palloc'd.
    unsafe {
        let array = pg_sys::pg_detoast_datum(array.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
        let mut values = std::ptr::null_mut();
        let mut nulls = std::ptr::null_mut();
        let mut count = 0;
        pg_sys::deconstruct_array(
            array,
            element.oid,
            element.length,
            element.by_value,
            element.align as _,
            &mut values,
            &mut nulls,
            &mut count,
        );
        let read = |at| (!*nulls.add(at)).then(|| *values.add(at));
        Elements::new((0..count as usize).map(read).collect())
    }
}

fn array(mut values: Vec<Datum>, element: &Element) -> Answer {
    // SAFETY: as many values as said, of the element's type; the array is palloc'd.
    unsafe {
        Datum::from(pg_sys::construct_array(
            values.as_mut_ptr(),
            values.len() as i32,
            element.oid,
            element.length,
            element.by_value,
            element.align as _,
        ))
        .into_answer()
    }
}

/// The elements of a text[].
pub fn texts(array: Datum) -> Result<Elements<Option<String>>> {
    let read = |datum| unsafe { text::from_datum(datum) };
    // SAFETY (of `read`): elements of a text[] are texts.
    let texts = elements(array, &TEXT).map(|element| element.map(read).transpose());
    Ok(Elements::new(texts.collect::<Result<_>>()?))
}

/// The elements of a text[], as the server stores them.
pub fn text_bytes(array: Datum) -> Elements<Option<Vec<u8>>> {
    // SAFETY: elements of a text[] are texts.
    let read = |datum| unsafe { text::bytes_from_datum(datum) };
    Elements::new(
        elements(array, &TEXT)
            .map(|element| element.map(read))
            .collect(),
    )
}

/// The elements of a name[].
pub fn names(array: Datum) -> Elements<Option<String>> {
    // SAFETY: a name is a NUL-terminated string in a field of fixed length.
    let read = |datum: Datum| unsafe { text::from_c(datum.cast_mut_ptr()) };
    Elements::new(
        elements(array, &NAME)
            .map(|element| element.map(read))
            .collect(),
    )
}

/// The elements of an oid[] that holds no NULL.
pub fn oids(array: Datum) -> Vec<Oid> {
    elements(array, &OID)
        .flatten()
        .map(|datum| Oid::from(datum.value() as u32))
        .collect()
}

/// The elements of an int2[] that holds no NULL.
pub fn int2s(array: Datum) -> Vec<i16> {
    elements(array, &INT2)
        .flatten()
        .map(|datum| datum.value() as i16)
        .collect()
}

/// The elements of a jsonb[].
pub fn jsonbs(array: Datum) -> Elements<Option<Datum>> {
    elements(array, &JSONB)
}

pub fn of_texts<'a>(values: impl IntoIterator<Item = &'a str>) -> Answer {
    array(values.into_iter().map(text::to_datum).collect(), &TEXT)
}

/// Texts as the server stores them.
pub fn of_text_bytes(values: &[Vec<u8>]) -> Answer {
    let values = values.iter().map(|value| text::bytes_to_datum(value));
    array(values.collect(), &TEXT)
}

pub fn of_names<'a>(values: impl IntoIterator<Item = &'a str>) -> Answer {
    array(values.into_iter().map(text::to_name).collect(), &NAME)
}

pub fn of_oids(values: &[Oid]) -> Answer {
    array(values.iter().map(|oid| Datum::from(*oid)).collect(), &OID)
}

pub fn of_int8s(values: &[i64]) -> Answer {
    array(
        values.iter().map(|value| Datum::from(*value)).collect(),
        &INT8,
    )
}

pub fn of_timestamps(values: impl IntoIterator<Item = Timestamp>) -> Answer {
    let values = values.into_iter().map(|value| Datum::from(value.0));
    array(values.collect(), &TIMESTAMPTZ)
}

pub fn of_uuids(values: impl IntoIterator<Item = Uuid>) -> Answer {
    let datum = |uuid: Uuid| match uuid.into_answer() {
        Answer::Datum(datum) => datum,
        Answer::Null => unreachable!("a uuid is not NULL"),
    };
    array(values.into_iter().map(datum).collect(), &UUID)
}
