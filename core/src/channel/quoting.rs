//! From a name to the text that stands for it.

/// Whether the scanner reads `name` as one unquoted word. The word may still be a reserved one, or fold
/// to another.
pub fn is_plain(name: &[u8]) -> bool {
    plain_prefix(name).is_some_and(|prefix| prefix.len() == name.len())
}

/// `name` between double quotes, the ones inside doubled.
pub fn quoted(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len() + 2);
    text.push(b'"');
    for byte in name {
        if *byte == b'"' {
            text.push(b'"');
        }
        text.push(*byte);
    }
    text.push(b'"');
    text
}

/// The unquoted word at the start of `text` (`identifier` in `scan.l`).
pub fn plain_prefix(text: &[u8]) -> Option<&[u8]> {
    let end = text
        .iter()
        .position(|byte| !is_inside(*byte))
        .unwrap_or(text.len());
    text.first()
        .is_some_and(|byte| is_start(*byte))
        .then(|| &text[..end])
}

/// Any byte of a character beyond ASCII is a letter to the scanner.
fn is_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || !byte.is_ascii()
}

fn is_inside(byte: u8) -> bool {
    is_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_letters_digits_and_dollars_are_plain() {
        for name in ["a", "_", "a1$", "École", "user", "FooBar"] {
            assert!(is_plain(name.as_bytes()), "{name:?}");
        }
        assert!(is_plain(b"\xE9"));
        for name in ["", "1a", "$a", "a b", "a-b", "a.b", "a\"", " a", "a\n"] {
            assert!(!is_plain(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn quotes_are_doubled_inside_quotes() {
        assert_eq!(quoted(b"a"), br#""a""#);
        assert_eq!(quoted(br#"a"b"#), br#""a""b""#);
        assert_eq!(quoted(b"\xE9\n"), b"\"\xE9\n\"");
    }
}
