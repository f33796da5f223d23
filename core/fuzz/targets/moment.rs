//! Dates, times and intervals in JSON: whatever the bits, what is written is a JSON string, of two equal ones the same, of two
//! different ones another.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pushy_core::json::{self, Interval};

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    serde_json::from_slice::<String>(&out)
        .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&out)))
}

fn interval(of: (i32, i32, i64)) -> String {
    let (months, days, us) = of;
    written(|out| json::interval(Interval { months, days, us }, out))
}

fuzz_target!(
    |input: (i32, i32, i64, i64, (i32, i32, i64), (i32, i32, i64))| {
        let (day, other_day, moment, other_moment, length, other_length) = input;
        let date = |day| written(|out| json::date(day, out));
        assert_eq!(date(day) == date(other_day), day == other_day);
        for write in [json::timestamp, json::timestamptz] {
            let at = |us| written(|out| write(us, out));
            assert_eq!(at(moment) == at(other_moment), moment == other_moment);
        }
        assert_eq!(
            interval(length) == interval(other_length),
            length == other_length
        );
    }
);
