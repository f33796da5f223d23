//! The expressions of a watch in the text of the trigger that holds them, as pg_get_triggerdef() of ruleutils.c
//! writes it: `CREATE TRIGGER … WHEN ((false AND (ROW(a, b, …) IS NULL))) EXECUTE FUNCTION …`.

/// The expressions a, b, …; None where the text is another.
pub fn expressions(trigger: &str) -> Option<Vec<&str>> {
    const START: &str = "WHEN ((false AND (ROW(";
    let start = outside_quotes(trigger)
        .map(|(at, _)| at)
        .find(|at| trigger[*at..].starts_with(START))?
        + START.len();
    let inside = &trigger[start..];
    let mut items = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, byte) in outside_quotes(inside) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' if depth == 0 => {
                items.push(inside[begin..at].trim());
                return inside[at..].starts_with(") IS NULL)").then_some(items);
            }
            b')' | b']' => depth -= 1,
            b',' if depth == 0 => {
                items.push(inside[begin..at].trim());
                begin = at + 1;
            }
            _ => {}
        }
    }
    None
}

/// The ASCII characters of a text that stand outside of '…' and "…". A quote inside is doubled, a backslash too
/// where it means something, so that neither has to be looked at.
fn outside_quotes(text: &str) -> impl Iterator<Item = (usize, u8)> + '_ {
    let mut quote = None;
    text.bytes().enumerate().filter(move |(_, byte)| {
        match quote {
            Some(open) if *byte == open => quote = None,
            Some(_) => {}
            None if matches!(byte, b'\'' | b'"') => quote = Some(*byte),
            None => return byte.is_ascii(),
        }
        false
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(row: &str) -> String {
        format!(
            "CREATE TRIGGER \"WHEN ((false AND (ROW(\"\"x\" AFTER UPDATE ON s.t FOR EACH ROW \
             WHEN ((false AND (ROW({row}) IS NULL))) EXECUTE FUNCTION pushy.watch_row('1', 't', 'a''b')"
        )
    }

    #[test]
    fn expressions_are_told_apart_by_the_commas_between_them() {
        let items = [
            "((old.v = new.v) IS NOT TRUE)",
            "(new.\"a,)\"\"b\" = 'c,)''d'::text)",
            "f(new.x, ARRAY[1, 2], E'\\\\'',')",
            "NULL::text",
        ];
        let text = trigger(&items.join(", "));
        assert_eq!(expressions(&text).unwrap(), items);
        assert_eq!(
            expressions(&trigger("é.\"é,\" , ü")).unwrap(),
            ["é.\"é,\"", "ü"]
        );
    }

    #[test]
    fn another_text_has_none() {
        for text in [
            "",
            "CREATE TRIGGER t WHEN ((new.a > 0)) EXECUTE",
            "WHEN ((false AND (ROW(a, 'b",
        ] {
            assert_eq!(expressions(text), None);
        }
        assert_eq!(expressions("WHEN ((false AND (ROW(a, b) = c)))"), None);
    }
}
