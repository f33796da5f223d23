//! What may stand between two tokens: white space and both kinds of comment (`scan.l`).

/// The text behind any white space and comments; nothing is left of an unfinished comment.
pub fn skip(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        rest = match rest {
            [byte, tail @ ..] if is_space(*byte) => tail,
            [b'-', b'-', tail @ ..] => after_line(tail),
            [b'/', b'*', tail @ ..] => after_block(tail),
            _ => return rest,
        };
    }
}

/// `\v` counts since PostgreSQL 16; before that its parser refuses it wherever it stands between tokens.
pub fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

pub fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

/// Behind a `--` comment; the line's end stays.
pub fn after_line(text: &[u8]) -> &[u8] {
    let end = text.iter().position(|byte| is_newline(*byte));
    &text[end.unwrap_or(text.len())..]
}

/// Behind the end of a block comment that has begun; they nest.
fn after_block(text: &[u8]) -> &[u8] {
    let mut rest = text;
    let mut depth = 1;
    while depth > 0 {
        rest = match rest {
            [b'/', b'*', tail @ ..] => {
                depth += 1;
                tail
            }
            [b'*', b'/', tail @ ..] => {
                depth -= 1;
                tail
            }
            [_, tail @ ..] => tail,
            [] => return rest,
        };
    }
    rest
}

/// Length of the longest run of operator characters in `text`. The server's scanner goes through a run
/// again for each `/*` in it, and for each `+` and `-` at its end.
pub fn longest_operator(text: &[u8]) -> usize {
    text.split(|byte| !b"~!@#^&|`?+-*/%<>=".contains(byte))
        .map(<[u8]>::len)
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{longest_operator, skip};

    #[test]
    fn the_longest_operator_is_found() {
        for (text, length) in [
            ("", 0),
            ("x", 0),
            ("-- +-", 2),
            ("a/*/* */", 4),
            ("~!@#^&|`?+-*/%<>=", 17),
        ] {
            assert_eq!(longest_operator(text.as_bytes()), length, "{text:?}");
        }
    }

    #[test]
    fn white_space_and_comments_are_skipped() {
        for (text, rest) in [
            ("x", "x"),
            (" \t\r\n\x0B\x0Cx ", "x "),
            ("--c\nx", "x"),
            ("--c\rx", "x"),
            ("/*c*/x", "x"),
            ("/* a /* b */ c */ -- d\n /**/x", "x"),
            ("/*/ c */x", "x"),
            ("/***/x", "x"),
            ("/*/**/*/x", "x"),
            ("-x", "-x"),
            ("/x", "/x"),
            ("--c", ""),
            ("/* a /* b */ x", ""),
            ("", ""),
        ] {
            assert_eq!(skip(text.as_bytes()), rest.as_bytes(), "{text:?}");
        }
    }
}
