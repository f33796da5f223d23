//! Characters that are not seen as what they are: controls, those that turn the direction of a text, and invisible ones. They forge
//! lines of logs and terminals, and names that look like another's.

use std::borrow::Cow;

/// Controls (C0, DEL, C1), separators of lines, and what turns the direction of others.
fn is_forging(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fff9}'..='\u{fffb}')
}

/// Those, and all that show nothing (Unicode's Default_Ignorable_Code_Point).
pub fn is_hidden(character: char) -> bool {
    is_forging(character)
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fff8}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// As a constant of SQL writes it: `\u001B`, `\U000E0041`.
fn push_escaped(character: char, out: &mut String) {
    let code = u32::from(character);
    *out += &if code <= 0xffff {
        format!("\\u{code:04X}")
    } else {
        format!("\\U{code:08X}")
    };
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_escaped(character) {
            push_escaped(character, &mut out);
        } else {
            out.push(character);
        }
    }
    out
}

/// A name with what is hidden written out.
pub fn shown(name: &str) -> String {
    escaped(name, is_hidden)
}

/// What a message says, which may be several lines, and in languages whose letters need invisible joiners.
pub fn of_message(message: &str) -> String {
    escaped(message, |character| {
        is_forging(character) && !matches!(character, '\n' | '\t')
    })
}

/// Bytes of a message that are shown at each of its ends.
const SHOWN: usize = 2_000;

/// A message that repeats a value of any length: its beginning, where the value is, and its end, which says what is wrong with it.
pub fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= 3 * SHOWN {
        return Cow::Borrowed(message);
    }
    let is_edge = |at: &usize| message.is_char_boundary(*at);
    let head = (0..=SHOWN).rev().find(is_edge).unwrap_or(0);
    let tail = (message.len() - SHOWN..message.len()).find(is_edge);
    let tail = tail.unwrap_or(message.len());
    let left_out = tail - head;
    let (head, tail) = (&message[..head], &message[tail..]);
    Cow::Owned(format!("{head}... ({left_out} bytes) ...{tail}"))
}

/// `value` as a string constant of SQL, which can be pasted.
pub fn quote_literal(value: &str) -> String {
    let doubled = value.replace('\'', "''");
    if doubled.contains('\\') || doubled.contains(is_hidden) {
        format!("E'{}'", shown(&doubled.replace('\\', "\\\\")))
    } else {
        format!("'{doubled}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_written_out() {
        let hides = "\u{0}\u{1b}\n\u{7f}\u{85}\u{ad}\u{61c}\u{200b}\u{200e}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}";
        for character in hides.chars() {
            assert!(is_hidden(character), "{character:?}");
            assert!(!shown(&character.to_string()).contains(is_hidden));
        }
        assert_eq!(shown("a\u{1b}[1m\u{e0041}é"), "a\\u001B[1m\\U000E0041é");
    }

    #[test]
    fn letters_of_all_scripts_are_left_alone() {
        for seen in [
            "jobs",
            "Größe 1",
            "заказы",
            "注文",
            "طلبات",
            "ø→\u{a0}🦀",
            "a\\b",
        ] {
            assert_eq!(shown(seen), seen);
            assert_eq!(of_message(seen), seen);
        }
    }

    #[test]
    fn a_message_keeps_its_lines_and_joiners() {
        assert_eq!(
            of_message("a\n\tb\u{200c}\u{1b}\u{202e}"),
            "a\n\tb\u{200c}\\u001B\\u202E"
        );
    }

    #[test]
    fn a_long_message_keeps_its_ends_and_whole_characters() {
        let most = "x".repeat(3 * SHOWN);
        assert_eq!(shortened(&most), most);
        for (unit, shift) in [
            ("x", 0),
            ("é", 0),
            ("é", 1),
            ("🦀", 0),
            ("🦀", 1),
            ("🦀", 2),
            ("🦀", 3),
        ] {
            let message = format!(
                "{}role \"{}\" is no role",
                "y".repeat(shift),
                unit.repeat(100_000)
            );
            let said = shortened(&message);
            assert!(said.len() <= 2 * SHOWN + 40, "{}", said.len());
            assert!(
                said.starts_with(&"yyyrole \""[3 - shift..]) && said.ends_with("\" is no role")
            );
            assert!(said.contains(" bytes) ...") && said.contains(unit));
        }
    }

    #[test]
    fn constants_can_be_pasted() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
        assert_eq!(
            quote_literal("x\u{1b}\n'\u{202e}"),
            "E'x\\u001B\\u000A''\\u202E'"
        );
    }
}
