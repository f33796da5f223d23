//! The escapes of a `U&"…"` name (`str_udeescape` in `parser.c`).

/// Undoes `\XXXX`, `\+XXXXXX` and `\\` in `body`, with `escape` for the backslash; two escapes that are a
/// surrogate pair are one character. `None` where the server refuses: an unknown escape, half a pair, a
/// number that is no character, zero.
pub fn decode(body: &[u8], escape: u8, encode: &dyn Fn(char) -> Vec<u8>) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((byte, tail)) = rest.split_first() {
        if *byte != escape {
            name.push(*byte);
            rest = tail;
        } else if tail.first() == Some(&escape) {
            name.push(escape);
            rest = &tail[1..];
        } else {
            let (char, tail) = character(tail, escape)?;
            name.extend(encode(char));
            rest = tail;
        }
    }
    Some(name)
}

/// The character whose escape begins before `text`, and what follows it.
fn character(text: &[u8], escape: u8) -> Option<(char, &[u8])> {
    let (first, rest) = code(text)?;
    let (code, rest) = match first {
        0xD800..=0xDBFF => {
            let (second, rest) = code(rest.strip_prefix(&[escape])?)?;
            let low = second.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
            (0x10000 + ((first - 0xD800) << 10) + low, rest)
        }
        other => (other, rest),
    };
    let char = char::from_u32(code).filter(|char| *char != '\0')?;
    Some((char, rest))
}

/// Four hexadecimal digits, or a plus sign and six.
fn code(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = match text {
        [b'+', rest @ ..] => rest.split_at_checked(6)?,
        _ => text.split_at_checked(4)?,
    };
    let mut code = 0;
    for digit in digits {
        code = code * 16 + char::from(*digit).to_digit(16)?;
    }
    Some((code, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(char: char) -> Vec<u8> {
        char.to_string().into_bytes()
    }

    fn decoded(body: &str, escape: u8) -> Option<String> {
        decode(body.as_bytes(), escape, &utf8).map(|name| String::from_utf8(name).expect("UTF-8"))
    }

    #[test]
    fn escapes_become_characters() {
        for (body, name) in [
            ("", ""),
            ("plain", "plain"),
            (r"\0061\+000062c", "abc"),
            (r"\\0061", r"\0061"),
            (r"\00E9\00e9", "éé"),
            (r"\d83d\de00", "😀"),
            (r"\+00d83d\+00de00", "😀"),
            (r"\+01f600", "😀"),
            (r"\+10ffff", "\u{10ffff}"),
            (r"\00610", "a0"),
        ] {
            assert_eq!(decoded(body, b'\\').as_deref(), Some(name), "{body:?}");
        }
    }

    #[test]
    fn another_escape_character_leaves_the_backslash_alone() {
        assert_eq!(decoded(r"!0061\0061!!", b'!').as_deref(), Some(r"a\0061!"));
    }

    #[test]
    fn what_the_server_refuses_is_nothing() {
        for body in [
            r"\",
            r"\006",
            r"\006g",
            r"\+00006",
            r"\0000",
            r"\+000000",
            r"\+110000",
            r"\d83d",
            r"\d83dx",
            r"\d83d\\",
            r"\d83d\d83d",
            r"\d83d\0061",
            r"\de00",
            r"\ud83d",
        ] {
            assert_eq!(decoded(body, b'\\'), None, "{body:?}");
        }
    }
}
