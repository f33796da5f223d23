//! The string behind UESCAPE: the character that escapes in a `U&"…"` name.
//!
//! It is an ordinary string constant, and those have many spellings: `'!'`, `E'\x21'`, `$$!$$`, or pieces
//! on several lines (`scan.l`).

use super::blank;
use super::identifier::Server;
use super::quoting;

/// The one byte that the string constant at the start of `text` stands for.
pub fn read(text: &[u8], server: &Server) -> Option<u8> {
    let value = match text {
        [b'\'', rest @ ..] => pieces(rest, !server.standard_conforming_strings, server)?,
        [b'e' | b'E', b'\'', rest @ ..] => pieces(rest, true, server)?,
        [b'$', rest @ ..] => dollar_quoted(rest)?,
        _ => return None,
    };
    match value[..] {
        [byte] => Some(byte),
        _ => None,
    }
}

/// The value of a quoted string from behind its first quote, with the pieces on later lines.
fn pieces(text: &[u8], backslashes: bool, server: &Server) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    let mut rest = text;
    loop {
        rest = match rest {
            [b'\'', b'\'', tail @ ..] => {
                value.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => match next_piece(tail) {
                Some(piece) => piece,
                None => return Some(value),
            },
            [b'\\', tail @ ..] if backslashes => backslash(tail, &mut value, server)?,
            [byte, tail @ ..] => {
                value.push(*byte);
                tail
            }
            [] => return None,
        };
    }
}

/// Behind the opening quote of the next piece: only white space and line comments stand before it, and
/// at least one end of a line.
fn next_piece(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text;
    let mut new_line = false;
    loop {
        rest = match rest {
            [b'\'', tail @ ..] if new_line => return Some(tail),
            [b'-', b'-', tail @ ..] => blank::after_line(tail),
            [byte, tail @ ..] if blank::is_space(*byte) => {
                new_line |= blank::is_newline(*byte);
                tail
            }
            _ => return None,
        };
    }
}

/// Decodes one escape from behind its backslash onto `value`; answers what follows it.
fn backslash<'a>(text: &'a [u8], value: &mut Vec<u8>, server: &Server) -> Option<&'a [u8]> {
    let (first, rest) = text.split_first()?;
    match first {
        b'0'..=b'7' => {
            let (code, rest) = number(text, 8, 3);
            // The server keeps the low byte of \400 and above.
            value.push(code as u8);
            Some(rest)
        }
        b'x' if rest.first().is_some_and(u8::is_ascii_hexdigit) => {
            let (code, rest) = number(rest, 16, 2);
            value.push(code as u8);
            Some(rest)
        }
        b'u' | b'U' => {
            let digits = if *first == b'u' { 4 } else { 8 };
            let (code, rest) = number(rest, 16, digits);
            value.extend((server.encode)(char::from_u32(code)?));
            Some(rest)
        }
        plain => {
            value.push(match plain {
                b'b' => 0x08,
                b'f' => 0x0C,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                other => *other,
            });
            Some(rest)
        }
    }
}

/// Up to `most` digits, and what follows them.
fn number(text: &[u8], radix: u32, most: usize) -> (u32, &[u8]) {
    let mut code = 0;
    let mut rest = text;
    for _ in 0..most {
        let Some((digit, tail)) = rest
            .split_first()
            .and_then(|(byte, tail)| Some((char::from(*byte).to_digit(radix)?, tail)))
        else {
            break;
        };
        // Eight hexadecimal digits at most: no overflow.
        code = code * radix + digit;
        rest = tail;
    }
    (code, rest)
}

/// The value of `$tag$…$tag$` from behind its first dollar.
fn dollar_quoted(text: &[u8]) -> Option<Vec<u8>> {
    let tag = text.iter().position(|byte| *byte == b'$')?;
    if tag > 0 && !quoting::is_plain(&text[..tag]) {
        return None;
    }
    // From the opening tag's second dollar on, the closing tag is the same text behind a dollar.
    let (close, body) = text.split_at(tag + 1);
    let close = [b"$", close].concat();
    let end = body
        .windows(close.len())
        .position(|window| window == close)?;
    Some(body[..end].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latin1(char: char) -> Vec<u8> {
        vec![u8::try_from(u32::from(char)).expect("a LATIN1 character")]
    }

    fn read_as(text: &str, standard_conforming_strings: bool) -> Option<u8> {
        let server = Server {
            standard_conforming_strings,
            encode: &latin1,
        };
        read(text.as_bytes(), &server)
    }

    #[test]
    fn every_spelling_of_an_exclamation_mark_is_read() {
        for text in [
            "'!'",
            "'!' -- comment",
            "e'!'",
            r"E'\!'",
            r"E'\41'",
            r"E'\041'",
            r"E'\x21'",
            r"E'\u0021'",
            r"E'\U00000021'",
            "$$!$$",
            "$tag$!$tag$ ",
            "'!'\n''",
            "'' \n -- comment\n\t'!'",
            "'' -- comment\r'!'",
            "'!' '' ",
            "'!' /* comment */\n ''",
        ] {
            assert_eq!(read_as(text, true), Some(b'!'), "{text:?}");
        }
    }

    #[test]
    fn escapes_that_stand_for_other_bytes_are_read() {
        for (text, byte) in [
            (r"E'\b'", 0x08),
            (r"E'\351'", 0xE9),
            (r"E'\u00e9'", 0xE9),
            (r"E'\x1'", 0x01),
            (r"E'\q'", b'q'),
            (r"E'\\'", b'\\'),
            ("''''", b'\''),
        ] {
            assert_eq!(read_as(text, true), Some(byte), "{text:?}");
        }
    }

    #[test]
    fn a_backslash_escapes_in_plain_strings_only_without_standard_conformance() {
        assert_eq!(read_as(r"'\'", true), Some(b'\\'));
        assert_eq!(read_as(r"'\\'", true), None);
        assert_eq!(read_as(r"'\\'", false), Some(b'\\'));
        assert_eq!(read_as(r"'\x21'", false), Some(b'!'));
        assert_eq!(read_as(r"'\'", false), None);
    }

    #[test]
    fn what_is_no_string_of_one_byte_is_nothing() {
        for text in [
            "",
            "!",
            "''",
            "'ab'",
            "'!",
            "$$!",
            "$a b$!$a b$",
            "$",
            r"E'\ud800'",
            r"E'\xg'",
        ] {
            assert_eq!(read_as(text, true), None, "{text:?}");
        }
    }
}
