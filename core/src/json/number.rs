//! Numbers: as such where a double holds them exactly, else as strings.

use std::io::Write;

/// Above this magnitude a double does not hold every integer: 2^53.
const EXACT: u64 = 1 << 53;
/// Decimal digits that every double of usual size keeps (DBL_DIG).
const DIGITS: usize = 15;
/// Zeros between the point and the first digit: with more, a double gets coarse and ends as zero.
const LEADING_ZEROS: usize = 290;

pub fn integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A number up to 2^53, beyond it a string.
#[cfg_attr(target_os = "linux", link_section = "commit_path")]
pub fn int8(value: i64, out: &mut Vec<u8>) {
    if value.unsigned_abs() <= EXACT {
        integer(value, out);
    } else {
        out.push(b'"');
        integer(value, out);
        out.push(b'"');
    }
}

/// A numeric, given as numeric_out writes it: a number if it is at most 2^53, has at most 15 significant
/// digits and is not too close to zero; else a string, as NaN and the infinities are.
pub fn numeric(text: &[u8], out: &mut Vec<u8>) {
    if is_exact_in_a_double(text) {
        out.extend_from_slice(text);
    } else {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    }
}

fn is_exact_in_a_double(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !digits.first().is_some_and(u8::is_ascii_digit) {
        return false;
    }
    let point = digits.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = match point {
        Some(point) => (&digits[..point], &digits[point + 1..]),
        None => (digits, &digits[..0]),
    };
    let zeros = |digits: &[u8]| digits.iter().take_while(|&&byte| byte == b'0').count();
    let whole = &whole[zeros(whole)..];
    let fraction_end = fraction.iter().rposition(|&byte| byte != b'0');
    let fraction = &fraction[..fraction_end.map_or(0, |last| last + 1)];
    if whole.is_empty() {
        let leading = zeros(fraction);
        return fraction.len() - leading <= DIGITS && leading <= LEADING_ZEROS;
    }
    if fraction.is_empty() {
        let trailing = whole.iter().rev().take_while(|&&byte| byte == b'0').count();
        return whole.len() - trailing <= DIGITS
            && std::str::from_utf8(whole)
                .ok()
                .and_then(|whole| whole.parse::<u64>().ok())
                .is_some_and(|whole| whole <= EXACT);
    }
    whole.len() + fraction.len() <= DIGITS
}

/// Money, in hundredths: the two decimals that lc_monetary "C" has, whatever the session's.
pub fn money(hundredths: i64, out: &mut Vec<u8>) {
    let mut text = [0u8; 24];
    let mut rest = &mut text[..];
    let sign = if hundredths < 0 { "-" } else { "" };
    let size = hundredths.unsigned_abs();
    // 19 digits, a sign and a point fit.
    let _ = write!(rest, "{sign}{}.{:02}", size / 100, size % 100);
    let unused = rest.len();
    numeric(&text[..text.len() - unused], out);
}

/// The shortest decimal that reads back as the same double; NaN and the infinities as strings.
pub fn float8(value: f64, out: &mut Vec<u8>) {
    let size = value.abs();
    // Writing into a Vec does not fail.
    let _ = if value.is_nan() {
        out.write_all(b"\"NaN\"")
    } else if value.is_infinite() {
        out.write_all(if value > 0.0 {
            b"\"Infinity\"".as_slice()
        } else {
            b"\"-Infinity\"".as_slice()
        })
    } else if size == 0.0 || (1e-4..1e15).contains(&size) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

/// The same for single precision: `Math.fround` of what is read gives the value.
pub fn float4(value: f32, out: &mut Vec<u8>) {
    let size = value.abs();
    if !value.is_finite() {
        return float8(f64::from(value), out);
    }
    // Writing into a Vec does not fail.
    let _ = if size == 0.0 || (1e-4..1e15).contains(&size) {
        write!(out, "{value}")
    } else {
        write!(out, "{value:e}")
    };
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;
    use crate::seeded::Seeded;

    #[test]
    fn integers_are_numbers_up_to_two_to_the_53() {
        for (value, json) in [
            (0, "0"),
            (-1, "-1"),
            (9_007_199_254_740_992, "9007199254740992"),
            (-9_007_199_254_740_992, "-9007199254740992"),
            (9_007_199_254_740_993, "\"9007199254740993\""),
            (-9_007_199_254_740_993, "\"-9007199254740993\""),
            (i64::MAX, "\"9223372036854775807\""),
            (i64::MIN, "\"-9223372036854775808\""),
        ] {
            assert_eq!(of(|out| int8(value, out)), json);
        }
    }

    #[test]
    fn numerics_are_numbers_up_to_15_digits() {
        for number in [
            "0",
            "0.00",
            "1.50",
            "-12.345",
            "123456789012345",
            "0.123456789012345",
            "1.23456789012345",
            "1.00000000000000000000000",
            "1000000000000000",
            "9007199254740990",
            "0.000000000000000000000000000123456789012345",
        ] {
            assert_eq!(of(|out| numeric(number.as_bytes(), out)), number);
        }
        let tiny = format!("0.{}1", "0".repeat(400));
        for string in [
            "NaN",
            "Infinity",
            "-Infinity",
            "1234567890123456",
            "0.1234567890123456",
            "1.234567890123456",
            "-9007199254740992",
            "9007199254740993",
            "10000000000000000",
            "100000000000000000000000000",
            "100000000000000.01",
            &tiny,
        ] {
            assert_eq!(
                of(|out| numeric(string.as_bytes(), out)),
                format!("\"{string}\"")
            );
        }
    }

    #[test]
    fn a_numeric_that_is_a_number_survives_a_double() {
        let mut seeded = Seeded::new(53);
        for _ in 0..100_000 {
            let digits = seeded.any_magnitude().to_string();
            let cut = seeded.below(digits.len() as u64 + 1) as usize;
            let text = match (&digits[..cut], &digits[cut..]) {
                ("", fraction) => format!("0.{fraction}"),
                (whole, "") => whole.to_owned(),
                (whole, fraction) => format!("{whole}.{fraction}"),
            };
            let json = of(|out| numeric(text.as_bytes(), out));
            if !json.starts_with('"') {
                let text = match text.contains('.') {
                    true => text.trim_end_matches('0').trim_end_matches('.'),
                    false => &text,
                };
                let places = text
                    .split_once('.')
                    .map_or(0, |(_, fraction)| fraction.len());
                let double: f64 = json.parse().unwrap();
                assert_eq!(format!("{double:.places$}"), text);
            }
        }
    }

    #[test]
    fn money_has_two_decimals() {
        for (value, json) in [
            (0, "0.00"),
            (-5, "-0.05"),
            (123_456, "1234.56"),
            (i64::MIN, "\"-92233720368547758.08\""),
        ] {
            assert_eq!(of(|out| money(value, out)), json);
        }
    }

    #[test]
    fn floats_read_back_as_they_were() {
        assert_eq!(of(|out| float8(0.1, out)), "0.1");
        assert_eq!(of(|out| float8(1.0, out)), "1");
        assert_eq!(of(|out| float8(-0.0, out)), "-0");
        assert_eq!(of(|out| float8(1e300, out)), "1e300");
        assert_eq!(of(|out| float8(5e-324, out)), "5e-324");
        assert_eq!(of(|out| float4(0.1, out)), "0.1");
        assert_eq!(of(|out| float4(f32::MAX, out)), "3.4028235e38");
        for (value, json) in [
            (f64::NAN, "\"NaN\""),
            (f64::INFINITY, "\"Infinity\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(of(|out| float8(value, out)), json);
            assert_eq!(of(|out| float4(value as f32, out)), json);
        }
        let mut seeded = Seeded::new(64);
        for _ in 0..100_000 {
            let value = f64::from_bits(seeded.any());
            if value.is_finite() {
                let json = of(|out| float8(value, out));
                assert_eq!(json.parse::<f64>().unwrap().to_bits(), value.to_bits());
            }
        }
    }
}
