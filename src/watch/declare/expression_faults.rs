//! What is wrong with the expressions of a watch, in words that name the argument.

use crate::errors::{quote_literal, Error, SqlState};
use crate::watch::definition::WatchDefinition;

/// The server has read all expressions at once, and does not say in which it found the fault.
#[cold]
pub(super) fn explained(mut error: Error, watch: &WatchDefinition) -> Error {
    let given: Vec<String> = watch
        .expressions_given()
        .filter_map(|(name, text)| Some(format!("{name} => {}", text.as_deref()?)))
        .collect();
    if error.detail.is_none() && !given.is_empty() {
        error.detail = Some(match given.as_slice() {
            [one] => format!("It is in {one}"),
            all => format!("It is in one of these: {}", all.join("; ")),
        });
    }
    if let Some(hint) = of_quotes(&error, watch) {
        return error.hint(hint);
    }
    match error.hint {
        Some(_) => error,
        None if error.sqlstate == SqlState::INSUFFICIENT_PRIVILEGE => error.hint(
            "Who declares a watch must be allowed to execute every function in its expressions: whoever owns the function can grant EXECUTE on it, and USAGE on its schema.",
        ),
        None => error.hint("Expressions of a watch are over NEW and OLD, without subqueries, such as NEW.amount > 100; a condition is boolean."),
    }
}

/// The two faults that come of quotes: a text in double quotes is the name of a column, and a constant has no type.
#[cold]
fn of_quotes(error: &Error, watch: &WatchDefinition) -> Option<String> {
    let mut quoted = watch
        .expressions_given()
        .filter_map(|(_, given)| given.as_ref())
        .flat_map(|text| text.split('"').skip(1).step_by(2));
    if error.sqlstate == SqlState::UNDEFINED_COLUMN {
        let name = quoted.find(|name| !name.is_empty() && error.message.contains(name))?;
        return Some(format!(
            "Double quotes are for names of columns; write a text in single quotes: {}.",
            quote_literal(name)
        ));
    }
    let is_constant = |text: &String| text.trim_start().starts_with(['\'', '$']);
    let args = watch.args_expr.as_ref().filter(|args| is_constant(args))?;
    (error.sqlstate == SqlState::DATATYPE_MISMATCH).then(|| {
        format!(
            "A constant has no type by itself: write args_expr => {}.",
            quote_literal(&format!("{}::jsonb", args.trim()))
        )
    })
}
