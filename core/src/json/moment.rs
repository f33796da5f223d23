//! Dates, times and intervals: ISO 8601 as to_json has it, whatever DateStyle, IntervalStyle and
//! TimeZone say.

use crate::calendar::civil;

const DAY_US: i64 = 86_400_000_000;
/// Days from 1970-01-01 to 2000-01-01, where the server counts from.
const EPOCH_DAYS: i64 = 10_957;

/// A day, counted from 2000-01-01: `"2026-11-22"`, `"0044-03-15 BC"`, `"infinity"`.
pub fn date(days: i32, out: &mut Vec<u8>) {
    match days {
        i32::MAX => out.extend_from_slice(b"\"infinity\""),
        i32::MIN => out.extend_from_slice(b"\"-infinity\""),
        _ => {
            let (year, month, day) = civil(i64::from(days) + EPOCH_DAYS);
            out.push(b'"');
            push_day(year, month, day, out);
            push_era(year, out);
            out.push(b'"');
        }
    }
}

/// Microseconds since 2000-01-01: `"2026-11-22T14:00:00.5"`.
pub fn timestamp(us: i64, out: &mut Vec<u8>) {
    moment(us, b"", out);
}

/// The same in UTC: `"2026-11-22T14:00:00+00:00"`.
pub fn timestamptz(us: i64, out: &mut Vec<u8>) {
    moment(us, b"+00:00", out);
}

fn moment(us: i64, zone: &[u8], out: &mut Vec<u8>) {
    match us {
        i64::MAX => out.extend_from_slice(b"\"infinity\""),
        i64::MIN => out.extend_from_slice(b"\"-infinity\""),
        _ => {
            let (year, month, day) = civil(us.div_euclid(DAY_US) + EPOCH_DAYS);
            let time = us.rem_euclid(DAY_US) as u64;
            let seconds = time / 1_000_000;
            out.push(b'"');
            push_day(year, month, day, out);
            out.push(b'T');
            push_two(seconds / 3600, out);
            out.push(b':');
            push_two(seconds / 60 % 60, out);
            out.push(b':');
            push_two(seconds % 60, out);
            push_fraction(time % 1_000_000, out);
            out.extend_from_slice(zone);
            push_era(year, out);
            out.push(b'"');
        }
    }
}

fn push_day(year: i64, month: u64, day: u64, out: &mut Vec<u8>) {
    let year = if year > 0 { year } else { 1 - year } as u64;
    if year < 10_000 {
        push_two(year / 100, out);
        push_two(year % 100, out);
    } else {
        super::integer(year, out);
    }
    out.push(b'-');
    push_two(month, out);
    out.push(b'-');
    push_two(day, out);
}

fn push_era(year: i64, out: &mut Vec<u8>) {
    if year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

fn push_two(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// Microseconds after the point, without trailing zeros; nothing for none.
fn push_fraction(us: u64, out: &mut Vec<u8>) {
    if us > 0 {
        out.push(b'.');
        push_two(us / 10_000, out);
        push_two(us / 100 % 100, out);
        push_two(us % 100, out);
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
}

/// An interval as the server stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub us: i64,
}

/// `"P1Y2M3DT4H5M6.5S"`: IntervalStyle `iso_8601`.
pub fn interval(value: Interval, out: &mut Vec<u8>) {
    let Interval { months, days, us } = value;
    // From 17 on; before, no interval comes near.
    for (extreme, word) in [
        ((i32::MAX, i32::MAX, i64::MAX), b"\"infinity\"".as_slice()),
        ((i32::MIN, i32::MIN, i64::MIN), b"\"-infinity\""),
    ] {
        if (months, days, us) == extreme {
            return out.extend_from_slice(word);
        }
    }
    if (months, days, us) == (0, 0, 0) {
        return out.extend_from_slice(b"\"PT0S\"");
    }
    let part = |value: i64, letter: u8, out: &mut Vec<u8>| {
        if value != 0 {
            super::integer(value, out);
            out.push(letter);
        }
    };
    out.extend_from_slice(b"\"P");
    part(i64::from(months / 12), b'Y', out);
    part(i64::from(months % 12), b'M', out);
    part(i64::from(days), b'D', out);
    if us != 0 {
        out.push(b'T');
        part(us / 3_600_000_000, b'H', out);
        part(us / 60_000_000 % 60, b'M', out);
        let seconds = us % 60_000_000;
        if seconds != 0 {
            if seconds < 0 {
                out.push(b'-');
            }
            super::integer(seconds.unsigned_abs() / 1_000_000, out);
            push_fraction(seconds.unsigned_abs() % 1_000_000, out);
            out.push(b'S');
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;

    #[test]
    fn days_are_iso() {
        for (days, json) in [
            (0, "\"2000-01-01\""),
            (-1, "\"1999-12-31\""),
            (59, "\"2000-02-29\""),
            (9_822, "\"2026-11-22\""),
            (-730_119, "\"0001-01-01\""),
            (-730_120, "\"0001-12-31 BC\""),
            // The first and the last day that the server knows.
            (-2_451_545, "\"4714-11-24 BC\""),
            (2_145_031_948, "\"5874897-12-31\""),
            (i32::MAX, "\"infinity\""),
            (i32::MIN, "\"-infinity\""),
        ] {
            assert_eq!(of(|out| date(days, out)), json);
        }
    }

    #[test]
    fn moments_are_iso_and_in_utc() {
        assert_eq!(of(|out| timestamp(0, out)), "\"2000-01-01T00:00:00\"");
        assert_eq!(
            of(|out| timestamptz(1, out)),
            "\"2000-01-01T00:00:00.000001+00:00\""
        );
        assert_eq!(
            of(|out| timestamptz(-500_000, out)),
            "\"1999-12-31T23:59:59.5+00:00\""
        );
        assert_eq!(
            of(|out| timestamptz(-730_120 * DAY_US, out)),
            "\"0001-12-31T00:00:00+00:00 BC\""
        );
        assert_eq!(of(|out| timestamptz(i64::MAX, out)), "\"infinity\"");
        assert_eq!(of(|out| timestamp(i64::MIN, out)), "\"-infinity\"");
    }

    #[test]
    fn intervals_are_iso() {
        for (months, days, us, json) in [
            (0, 0, 0, "\"PT0S\""),
            (14, 3, 14_706_500_000, "\"P1Y2M3DT4H5M6.5S\""),
            (-14, 3, -14_706_500_000, "\"P-1Y-2M3DT-4H-5M-6.5S\""),
            (0, 0, -500_000, "\"PT-0.5S\""),
            (0, 1, 0, "\"P1D\""),
            (i32::MAX, i32::MAX, i64::MAX, "\"infinity\""),
        ] {
            let value = Interval { months, days, us };
            assert_eq!(of(|out| interval(value, out)), json);
        }
    }
}
