//! One identifier as it was written, before the server folds or cuts it.

use super::{blank, escape_character, quoting, unicode_escapes};

/// What reading an identifier needs to know of the server.
pub struct Server<'a> {
    /// The setting of that name: whether a backslash in `'…'` is just a backslash.
    pub standard_conforming_strings: bool,
    /// A character's bytes in the server's encoding; only asked for what the server can write.
    pub encode: &'a dyn Fn(char) -> Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `name`: the server folds it.
    Plain,
    /// `"name"` or `U&"name"`: taken as it is.
    Quoted,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifier {
    pub form: Form,
    /// Quotes and escapes undone; of any length, and not folded yet.
    pub name: Vec<u8>,
}

impl Identifier {
    /// Reads the identifier that `text` starts with, behind white space and comments. `None` when there
    /// is none that these rules can read; what follows it is the parser's concern.
    pub fn read(text: &[u8], server: &Server) -> Option<Self> {
        match blank::skip(text) {
            [b'"', rest @ ..] => {
                let (name, _) = delimited(rest)?;
                Some(Self::quoted(name))
            }
            [b'u' | b'U', b'&', b'"', rest @ ..] => {
                let (body, rest) = delimited(rest)?;
                let escape = match uescape(rest) {
                    Some(literal) => escape_character::read(literal, server)?,
                    None => b'\\',
                };
                let name = unicode_escapes::decode(&body, escape, server.encode)?;
                Some(Self::quoted(name))
            }
            rest => {
                let name = quoting::plain_prefix(rest)?;
                Some(Self {
                    form: Form::Plain,
                    name: name.to_vec(),
                })
            }
        }
    }

    fn quoted(name: Vec<u8>) -> Self {
        Self {
            form: Form::Quoted,
            name,
        }
    }
}

/// Length of the longest run of operator characters around the first identifier. Reading takes the server
/// the square of it: seconds for a hundred thousand, out of any signal's reach. Between quotes they cost nothing.
pub fn longest_operator(text: &[u8]) -> usize {
    let start = blank::skip(text);
    let before = &text[..text.len() - start.len()];
    let after = match start {
        [b'"', rest @ ..] | [b'u' | b'U', b'&', b'"', rest @ ..] => {
            delimited(rest).map_or(&[][..], |(_, rest)| rest)
        }
        rest => rest,
    };
    blank::longest_operator(before).max(blank::longest_operator(after))
}

/// From behind the opening quote: what is inside, `""` undone, and the text behind the closing quote.
fn delimited(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut name = Vec::new();
    let mut rest = text;
    loop {
        let quote = rest.iter().position(|byte| *byte == b'"')?;
        name.extend_from_slice(&rest[..quote]);
        rest = &rest[quote + 1..];
        match rest {
            [b'"', tail @ ..] => {
                name.push(b'"');
                rest = tail;
            }
            _ => return Some((name, rest)),
        }
    }
}

/// The text behind the word UESCAPE, if that comes next.
fn uescape(text: &[u8]) -> Option<&[u8]> {
    const WORD: &[u8] = b"uescape";
    let rest = blank::skip(text);
    let (word, rest) = rest.split_at_checked(WORD.len())?;
    word.eq_ignore_ascii_case(WORD).then(|| blank::skip(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utf8(char: char) -> Vec<u8> {
        char.to_string().into_bytes()
    }

    fn read(text: &str) -> Option<(Form, String)> {
        let server = Server {
            standard_conforming_strings: true,
            encode: &utf8,
        };
        Identifier::read(text.as_bytes(), &server).map(|identifier| {
            let name = String::from_utf8(identifier.name).expect("UTF-8");
            (identifier.form, name)
        })
    }

    #[test]
    fn a_plain_name_ends_where_the_scanner_ends_it() {
        for (text, name) in [
            ("FooBar", "FooBar"),
            ("  a_1$ ", "a_1$"),
            ("/* c */x--c", "x"),
            ("x/*c*/", "x"),
            ("École", "École"),
            ("u", "u"),
            ("U&x", "U"),
        ] {
            assert_eq!(read(text), Some((Form::Plain, name.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn a_quoted_name_is_what_stands_between_the_quotes() {
        for (text, name) in [
            (r#""FooBar""#, "FooBar"),
            (r#" "a""b" -- c"#, r#"a"b"#),
            (r#""""""#, r#"""#),
            (r#""--x/*""#, "--x/*"),
            ("\"a\nb\"", "a\nb"),
            (r#""a\0041""#, r"a\0041"),
        ] {
            assert_eq!(
                read(text),
                Some((Form::Quoted, name.to_owned())),
                "{text:?}"
            );
        }
    }

    #[test]
    fn unicode_escapes_are_undone_with_and_without_uescape() {
        for (text, name) in [
            (r#"U&"d\0061t\+000061""#, "data"),
            (r#"u&"d!0061t" UESCAPE '!'"#, "dat"),
            (r#"U&"d!0061t"uescape'!'"#, "dat"),
            ("U&\"d!0061t\" /* a */ UeScApE -- b\n '!' -- c", "dat"),
            (r#"U&"a""b\0022""#, r#"a"b""#),
            (r#"U&"\d83d\de00""#, "😀"),
        ] {
            assert_eq!(
                read(text),
                Some((Form::Quoted, name.to_owned())),
                "{text:?}"
            );
        }
    }

    #[test]
    fn operators_count_outside_quotes() {
        for (text, length) in [
            ("x", 0),
            ("-- ---\nx--", 3),
            ("/*/**/*/ x", 8),
            (r#""+++" -"#, 1),
            (r#""++""++" --"#, 2),
            (r#"U&"+++" UESCAPE '!' /**/"#, 4),
            (r#""+++"#, 0),
            ("+-+-+-", 6),
        ] {
            assert_eq!(longest_operator(text.as_bytes()), length, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_identifier_is_nothing() {
        for text in [
            "",
            "  ",
            "-- c",
            "/* c",
            "1x",
            "'x'",
            "$1",
            "*",
            "\"x",
            "U&\"x",
            r#"U&"\0""#,
            r#"U&"x" UESCAPE 'xy'"#,
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
