//! Numbers and text in JSON: whatever the value, what is written is JSON, and reads back as that value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_core::json;
use serde_json::Value;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> Value {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice(&out)
        .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&out)))
}

/// The text of a number, wherever it is written as a string.
fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fuzz_target!(|input: (i64, f64, f32, String, Vec<u8>)| {
    let (integer, double, single, words, bytes) = input;
    assert_eq!(
        text(&written(|out| json::int8(integer, out))),
        integer.to_string()
    );
    let size = integer.unsigned_abs();
    let sign = if integer < 0 { "-" } else { "" };
    assert_eq!(
        text(&written(|out| json::money(integer, out))),
        format!("{sign}{}.{:02}", size / 100, size % 100)
    );
    let read: f64 = text(&written(|out| json::float8(double, out)))
        .parse()
        .expect("a number");
    assert!(read == double || (read.is_nan() && double.is_nan()));
    let read: f64 = text(&written(|out| json::float4(single, out)))
        .parse()
        .expect("a number");
    assert!(read as f32 == single || (read.is_nan() && single.is_nan()));
    assert_eq!(
        written(|out| json::quoted(words.as_bytes(), out)),
        Value::String(words.clone())
    );
    let hex = text(&written(|out| json::hex(&bytes, out)));
    assert_eq!(hex.len(), 2 + 2 * bytes.len());
    // As numeric_out writes it: digits with a point somewhere.
    let digits: String = bytes
        .iter()
        .map(|byte| char::from(b'0' + byte % 10))
        .collect();
    for numeric in [
        digits.clone(),
        format!("-0.{digits}0"),
        format!("{digits}1.5"),
    ] {
        let valid = numeric.trim_start_matches('-');
        let is_numeric = !valid.is_empty()
            && (valid == "0" || valid.starts_with("0.") || !valid.starts_with('0'));
        if is_numeric {
            let back = text(&written(|out| json::numeric(numeric.as_bytes(), out)));
            assert_eq!(
                back.parse::<f64>().unwrap(),
                numeric.parse::<f64>().unwrap()
            );
        }
    }
});
