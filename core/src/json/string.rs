//! Strings.

/// What a byte is escaped as: 0 for itself, `u` for `\u00XX`, else the letter after the backslash.
const ESCAPES: [u8; 256] = {
    let mut escapes = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escapes[byte] = b'u';
        byte += 1;
    }
    escapes[0x08] = b'b';
    escapes[b'\t' as usize] = b't';
    escapes[b'\n' as usize] = b'n';
    escapes[0x0c] = b'f';
    escapes[b'\r' as usize] = b'r';
    escapes[b'"' as usize] = b'"';
    escapes[b'\\' as usize] = b'\\';
    escapes
};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// `bytes` as a JSON string, quotes included.
pub fn quoted(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    let mut copied = 0;
    for (position, &byte) in bytes.iter().enumerate() {
        let escape = ESCAPES[usize::from(byte)];
        if escape != 0 {
            out.extend_from_slice(&bytes[copied..position]);
            copied = position + 1;
            out.extend_from_slice(&[b'\\', escape]);
            if escape == b'u' {
                out.extend_from_slice(b"00");
                push_hex(byte, out);
            }
        }
    }
    out.extend_from_slice(&bytes[copied..]);
    out.push(b'"');
}

/// The bytes that [`quoted`] appends.
pub fn quoted_length(bytes: &[u8]) -> usize {
    let escapes = bytes.iter().map(|&byte| match ESCAPES[usize::from(byte)] {
        0 => 0,
        b'u' => 5,
        _ => 1,
    });
    bytes.len() + 2 + escapes.sum::<usize>()
}

fn push_hex(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// A bytea in its hex form: `"\\x0aff"`.
pub fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.reserve(2 * bytes.len() + 5);
    out.extend_from_slice(br#""\\x"#);
    for &byte in bytes {
        push_hex(byte, out);
    }
    out.push(b'"');
}

/// A uuid: `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`.
pub fn uuid(bytes: &[u8; 16], out: &mut Vec<u8>) {
    out.push(b'"');
    for (position, &byte) in bytes.iter().enumerate() {
        if matches!(position, 4 | 6 | 8 | 10) {
            out.push(b'-');
        }
        push_hex(byte, out);
    }
    out.push(b'"');
}

/// What [`uuid`] writes, between its quotes.
pub fn read_uuid(text: &str) -> Option<[u8; 16]> {
    let groups: Vec<&str> = text.split('-').collect();
    let lengths = groups.iter().map(|group| group.len());
    let digits = groups.concat();
    if !lengths.eq([8, 4, 4, 4, 12]) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::of;
    use super::*;

    #[test]
    fn plain_text_is_copied() {
        assert_eq!(of(|out| quoted("Zürich €".as_bytes(), out)), "\"Zürich €\"");
        assert_eq!(of(|out| quoted(b"", out)), "\"\"");
    }

    #[test]
    fn quotes_backslashes_and_control_characters_are_escaped() {
        assert_eq!(
            of(|out| quoted(b"a\"b\\c\x01\x1f\x08\x0c\n\r\t/\x7f", out)),
            "\"a\\\"b\\\\c\\u0001\\u001f\\b\\f\\n\\r\\t/\u{7f}\""
        );
    }

    #[test]
    fn bytes_that_are_no_utf8_stay() {
        let mut out = Vec::new();
        quoted(b"\xe9\"\xff", &mut out);
        assert_eq!(out, b"\"\xe9\\\"\xff\"");
    }

    #[test]
    fn bytes_are_hex() {
        assert_eq!(of(|out| hex(&[0, 0x1f, 0xff], out)), r#""\\x001fff""#);
        assert_eq!(of(|out| hex(&[], out)), r#""\\x""#);
    }

    #[test]
    fn a_uuid_has_its_dashes() {
        let bytes: [u8; 16] = std::array::from_fn(|index| index as u8 * 17);
        assert_eq!(
            of(|out| uuid(&bytes, out)),
            "\"00112233-4455-6677-8899-aabbccddeeff\""
        );
        assert_eq!(
            read_uuid("00112233-4455-6677-8899-AABBccddeeff"),
            Some(bytes)
        );
        for other in [
            "",
            "1",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeefg",
            "0011223-34455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(read_uuid(other), None, "{other}");
        }
    }
}
